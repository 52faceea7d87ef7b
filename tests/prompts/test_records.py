"""How messages name values and paths, and which values a record may hold."""

from typing import Any

import pytest

from batchgen.prompts.records import MAX_DEPTH, BadRow, check_value, doubled, path_name, shown, told


def test_values_are_shown_on_one_short_line_of_ascii() -> None:
    assert shown("é\n") == "'\\xe9\\n'"
    assert len(shown("x" * 1_000)) == 60 and shown("x" * 1_000).endswith("...")


def test_a_path_is_shown_as_it_is_unless_it_could_move_the_cursor() -> None:
    assert path_name("prompts/é.csv") == "prompts/é.csv"
    assert path_name("a\x1b[2J.csv") == "'a\\x1b[2J.csv'"


def test_a_name_that_appears_twice_is_found() -> None:
    assert doubled(["a", "b", "a"]) == "a"
    assert doubled(["a", "b"]) is None and doubled([]) is None


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"note": {"deep": ["a\0"]}}, "'note' has a NUL"),
        ({"a\0": 1}, "NUL"),
        ("\ud800", "lone surrogate, U+D800"),
        (nested(MAX_DEPTH + 1), "nested more than"),
    ],
)
def test_values_that_later_code_could_not_write_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason.replace("+", r"\+")):
        check_value(value)


def test_deep_and_foreign_values_within_the_bounds_pass() -> None:
    check_value(nested(MAX_DEPTH))
    check_value({"note": ["日本 🦊", 1.5, None]})


def test_what_a_person_reads_keeps_printable_text() -> None:
    assert told("é ü") == "'é ü'"
    assert told("é\n") == "'é\\n'" and told("é\x1b\u202e").isprintable()
    assert len(told("é" * 99)) == 60
