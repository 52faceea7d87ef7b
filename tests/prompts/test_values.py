"""Numbers, keys and texts as programs write them."""

from typing import Any

import pytest

from batchgen.config.bounds import SEED_LIMIT
from batchgen.prompts.records import BadRow
from batchgen.prompts.values import check_copies, checked_number, is_seed_of_64_bits, key_text, number_in, prompt_text


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("seed", "5", 5),
        ("seed", " 007 ", 7),
        ("seed", 5.0, 5),
        ("seed", "5.0", 5),
        ("seed", "5.", 5),
        ("seed", "5,0", 5),
        ("seed", -1.0, -1),
        ("steps", float(2**53), 2**53),
        ("seed", str(2**64 - 1), 2**64 - 1),
        ("seed", float("nan"), None),
        ("seed", "NaN", None),
        ("width", "None", None),
        ("width", " <NA> ", None),
        ("guidance", "7.5", 7.5),
        ("guidance", "7,5", 7.5),
        ("guidance", 7, 7),
        ("guidance", "1e1", 10.0),
        ("steps", "1,000", "1,000"),  # a thousand to one reader, one to another
        ("seed", "1e3", "1e3"),
        ("seed", "5.5", "5.5"),
        ("seed", 5.5, 5.5),
        ("seed", True, True),
        ("seed", [5], [5]),
        ("seed", "", ""),
        ("guidance", "", ""),
    ],
)
def test_what_a_value_means_as_a_number(name: str, value: Any, meant: Any) -> None:
    got = number_in(name, value)
    assert got == meant and type(got) is type(meant)


def test_a_number_that_a_float_has_rounded_is_refused() -> None:
    with pytest.raises(BadRow, match="was rounded by the program that wrote it"):
        number_in("seed", 1.8446744073709552e19)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("width", 500, "job.columns.width=null job.columns.height=null leave the size to the job"),
        ("height", 333, "job.columns.width=null job.columns.height=null leave the size to the job"),
        ("steps", 0, "job.columns.steps=null ignores the column"),
        ("guidance", "high", "job.columns.guidance=null ignores the column"),
        ("seed", -2, "job.columns.seed=null ignores the column"),
    ],
)
def test_a_value_that_cannot_be_used_names_the_key_that_turns_its_column_off(name: str, value: Any, key: str) -> None:
    with pytest.raises(BadRow) as caught:
        checked_number(name, value)
    assert str(caught.value).startswith(f"{name} must be") and key in str(caught.value)


def test_seeds_of_other_programs_have_64_bits() -> None:
    assert [is_seed_of_64_bits(seed) for seed in (SEED_LIMIT - 1, SEED_LIMIT, 2**64 - 1, 2**64, -1, "5", True)] == [
        False, True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "key"), [("fox", "fox"), (12, "12"), (12.0, "12"), ("12.0", "12"), ("12", "12"), ("007", "007")]
)
def test_keys_of_programs_that_write_numbers(value: Any, key: str) -> None:
    assert key_text(value, lenient=True) == key


@pytest.mark.parametrize(
    ("value", "lenient"), [(12.0, False), ("12.0", False), (12.5, True), (True, True), ("a b", True)]
)
def test_what_is_no_key(value: Any, lenient: bool) -> None:
    with pytest.raises(BadRow, match="key must be"):
        key_text(value, lenient)


@pytest.mark.parametrize("value", [None, "", " ", "\u2003", 5, {"a": 1}])
def test_what_is_no_prompt(value: Any) -> None:
    with pytest.raises(BadRow, match="prompt"):
        prompt_text(value)


def test_copies_stay_within_the_seeds() -> None:
    check_copies({"seed": SEED_LIMIT - 2, "images_per_prompt": 2})
    with pytest.raises(BadRow, match="beyond the last seed"):
        check_copies({"seed": SEED_LIMIT - 2, "images_per_prompt": 3})
