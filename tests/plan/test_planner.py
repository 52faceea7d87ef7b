"""What is made of which row: keys, seeds and settings; how prompts are packed."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from batchgen.config.bounds import SEED_LIMIT
from batchgen.config.schema import JobConfig
from batchgen.errors import ModelError
from batchgen.plan.planner import Planner, image_seed, pack_batches
from batchgen.types import Lora, Prompt, Reject, Row
from tests.builders import make_prompt, make_row

JOB = JobConfig(name="test", prompts="-", width=64, height=64, steps=2, guidance=5.0, negative_prompt="blurry", seed=3)


def planned(*rows: Row | Reject, job: JobConfig = JOB, limit: int | None = None) -> list[Any]:
    return list(Planner(job).prompts(rows, limit))


def seeds_by_text(rows: list[Row]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for prompt in planned(*rows):
        found.setdefault(prompt.prompt, []).append(prompt.seed)
    return found


def test_a_row_that_says_nothing_gets_the_settings_of_the_job() -> None:
    [prompt] = planned(make_row("a red fox", row=4, file=2, extra={"id": 9}))
    assert prompt == Prompt(
        key="002000000004-00",
        prompt="a red fox",
        negative_prompt="blurry",
        seed=image_seed(3, "a red fox", "blurry", 0, 0),
        width=64,
        height=64,
        steps=2,
        guidance=5.0,
        source="prompts.txt",
        line=5,
        extra={"id": 9},
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("negative_prompt", ""), ("seed", 0), ("width", 128), ("height", 72), ("steps", 9), ("guidance", 0.0)],
)
def test_what_a_row_says_wins_over_the_job_even_where_it_is_zero_or_empty(field: str, value: Any) -> None:
    [prompt] = planned(make_row(**{field: value}))
    assert getattr(prompt, field) == value


@pytest.mark.parametrize("job", ["", "blurry", "<none>", "<empty>", " <Empty>"])
@pytest.mark.parametrize(
    ("row", "planned_as"),
    [("<none>", ""), (" <None> ", ""), ("<empty>", "<empty>"), ("<EMPTY>", "<empty>"), ("x", "x")],
)
def test_a_row_may_ask_for_no_negative_prompt_or_for_the_empty_text(job: str, row: str, planned_as: str) -> None:
    settings = JobConfig(name="test", prompts="-", width=64, height=64, guidance=5.0, negative_prompt=job)
    said, silent = planned(make_row(negative_prompt=row), make_row(row=1), job=settings)
    assert said.negative_prompt == planned_as
    assert said.negative_text == planned_as.replace("<empty>", "")
    assert silent.negative_prompt == {"<none>": "", " <Empty>": "<empty>"}.get(job, job)
    assert said.seed == image_seed(0, said.prompt, planned_as, 0, 0)


@pytest.mark.parametrize(
    ("key", "copies", "keys"),
    [
        (None, 1, ["000000000000-00"]),
        (None, 3, ["000000000000-00", "000000000000-01", "000000000000-02"]),
        ("fox", 1, ["fox"]),
        ("fox", 2, ["fox-00", "fox-01"]),
    ],
)
def test_every_image_of_a_row_has_a_key_of_its_own(key: str | None, copies: int, keys: list[str]) -> None:
    assert [prompt.key for prompt in planned(make_row(key=key, images_per_prompt=copies))] == keys


@pytest.mark.parametrize(
    ("key", "copies", "keys"),
    [
        (None, 1, ["000000000000-00", "000000000000-01", "000000000000-02"]),
        (None, 2, [f"000000000000-{number:02d}" for number in range(6)]),
        ("fox", 1, ["fox-00", "fox-01", "fox-02"]),
        ("fox", 2, [f"fox-{number:02d}" for number in range(6)]),
    ],
)
def test_the_captions_of_a_record_have_keys_and_seeds_of_their_own(
    key: str | None, copies: int, keys: list[str]
) -> None:
    rows = [
        make_row(f"fox {number}", key=key, images_per_prompt=copies, caption=number, captions=3) for number in range(3)
    ]
    prompts = planned(*rows)
    assert [prompt.key for prompt in prompts] == keys
    assert [prompt.seed for prompt in prompts] == [
        image_seed(3, f"fox {number}", "blurry", 0, copy) for number in range(3) for copy in range(copies)
    ]
    assert [prompt.key for prompt in planned(rows[0], rows[2])] == keys[:copies] + keys[2 * copies :], "one was empty"


def test_captions_count_as_rows_for_the_limit_and_for_an_extension() -> None:
    rows = [make_row("fox", caption=number, captions=3, images_per_prompt=2) for number in range(3)]
    assert len(planned(*rows, limit=2)) == 4
    planner = Planner(JOB)
    assert planner.recall(planned(*rows)) == 3
    assert [*planner.prompts([make_row("fox", row=1)], None)] == planned(*rows, make_row("fox", row=1))[6:]


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([(5, 3), (6, 3)], "lines 1 and 2 both use 6"),
        ([(6, 1), (9, 1), (5, 2)], "lines 1 and 3 both use 6"),
        ([(5, 3), (8, 3)], None),
        ([(5, 1), (6, 1), (7, 1)], None),
        ([(5, 3), (5, 3)], None),  # the rows ask for the same seed themselves
        ([(None, 3), (None, 3)], None),
    ],
)
def test_rows_that_share_seeds_because_they_count_up_are_told_once(
    rows: list[tuple[int | None, int]], shared: str | None
) -> None:
    notes: list[str] = []
    made = [make_row(row=place, seed=seed, images_per_prompt=many) for place, (seed, many) in enumerate(rows)]
    prompts = list(Planner(JOB, notes).prompts(made, None))
    for (seed, _), prompt in zip(rows, [prompt for prompt in prompts if prompt.copy == 0], strict=True):  # type: ignore[union-attr]
        assert seed in (None, prompt.seed), "seeds never change"  # type: ignore[union-attr]
    if shared is None:
        assert notes == []
    else:
        first, second, seed_shared = (word for word in shared.split() if word.isdigit())
        [note] = notes
        assert f"prompts.txt:{first} and prompts.txt:{second} both use {seed_shared}" in note
        assert "images_per_prompt=" in note and "apart" in note


def test_only_so_many_seeds_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchgen.plan.planner._WATCHED_SEEDS", 10)
    notes: list[str] = []
    rows = [make_row(row=place, seed=place * 10, images_per_prompt=10) for place in range(9)]
    assert len(list(Planner(JOB, notes).prompts([*rows, make_row(row=9, seed=81)], None))) == 91
    assert notes == []


def test_the_job_may_ask_for_several_images_of_each_row() -> None:
    job = JobConfig(name="test", prompts="-", images_per_prompt=2, width=64, height=64, guidance=7.5)
    prompts = planned(make_row(), make_row(row=1, images_per_prompt=1), job=job)
    assert [prompt.key for prompt in prompts] == ["000000000000-00", "000000000000-01", "000000000001-00"]


def test_a_key_that_is_there_already_is_rejected_and_named() -> None:
    rows = [make_row(key="fox"), make_row(row=1, key="fox"), make_row(row=2, key="hen")]
    first, reject, last = planned(*rows)
    assert (first.key, last.key) == ("fox", "hen")
    assert reject == Reject("prompts.txt", 2, "duplicate key fox")


def test_a_copy_must_not_take_the_key_of_another_row() -> None:
    *_, reject = planned(make_row(key="fox-01"), make_row(row=1, key="fox", images_per_prompt=2))
    assert reject == Reject("prompts.txt", 2, "duplicate key fox-01")


def test_a_key_that_its_copy_number_makes_too_long_is_rejected() -> None:
    [fits] = planned(make_row(key="k" * 64))
    [reject] = planned(make_row(key="k" * 64, images_per_prompt=2))
    assert fits.key == "k" * 64
    assert isinstance(reject, Reject)
    assert "too long" in reject.reason


def test_a_seed_never_changes_from_one_version_to_the_next() -> None:
    assert image_seed(0, "a red fox", "", 0, 0) == 3671635491


@pytest.mark.parametrize(
    "other", [(1, "a", "b", 0, 0), (0, "ab", "", 0, 0), (0, "", "ab", 0, 0), (0, "a", "b", 1, 0), (0, "a", "b", 0, 1)]
)
def test_a_seed_depends_on_each_of_its_parts(other: tuple[int, str, str, int, int]) -> None:
    assert image_seed(*other) != image_seed(0, "a", "b", 0, 0)


def test_seeds_are_32_bit_and_spread() -> None:
    seeds = [image_seed(0, f"fox {number}", "", 0, 0) for number in range(1000)]
    assert all(0 <= seed < SEED_LIMIT for seed in seeds)
    assert len(set(seeds)) > 995
    assert min(seeds) < SEED_LIMIT / 20 < SEED_LIMIT * 19 / 20 < max(seeds)


def test_the_seed_of_a_text_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = [make_row(f"fox {number % 5}", row=number) for number in range(20)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert seeds_by_text(shuffled) == seeds_by_text(rows)


def test_rows_with_the_same_text_get_different_seeds() -> None:
    [seeds] = seeds_by_text([make_row(row=row, images_per_prompt=2) for row in range(3)]).values()
    assert len(set(seeds)) == 6


def test_copies_count_on_from_the_seed_of_the_row() -> None:
    assert [one.seed for one in planned(make_row(seed=SEED_LIMIT - 2, images_per_prompt=2))] == [
        SEED_LIMIT - 2,
        SEED_LIMIT - 1,
    ]
    [reject] = planned(make_row(seed=SEED_LIMIT - 2, images_per_prompt=3))
    assert isinstance(reject, Reject)


def test_the_limit_counts_good_rows_and_not_their_images() -> None:
    bad = Reject("prompts.txt", 1, "empty")
    rows: list[Row | Reject] = [
        bad,
        make_row(row=1, key="k"),
        make_row(row=2, key="k"),
        make_row(row=3, images_per_prompt=2),
        make_row(),
    ]
    kinds = [type(one) for one in planned(*rows, limit=2)]
    assert kinds == [Reject, Prompt, Reject, Prompt, Prompt]


def test_an_extension_goes_on_after_what_is_planned() -> None:
    rows = [make_row(row=0, images_per_prompt=2), make_row(row=1, key="own")]
    whole = planned(*rows, make_row(row=2), make_row(row=3, key="own"))
    planner = Planner(JOB)
    assert planner.recall(planned(*rows)) == 2
    assert [*planner.prompts([make_row(row=2), make_row(row=3, key="own")], None)] == whole[3:]


def test_prompts_that_cannot_run_together_are_in_different_batches() -> None:
    fields: list[dict[str, Any]] = [{}, {"width": 128}, {"height": 128}, {"steps": 3}, {"guidance": 1.0}]
    prompts = [make_prompt(f"{copy}-{place}", **one) for copy in range(3) for place, one in enumerate(fields)]
    batches = [batch for batch in pack_batches(prompts, 2) if isinstance(batch, tuple)]
    assert all(len({prompt.group for prompt in batch}) == 1 for batch in batches)
    assert sorted(len(batch) for batch in batches) == [1] * 5 + [2] * 5
    assert sorted(one.key for batch in batches for one in batch) == sorted(one.key for one in prompts)


def test_prompts_that_differ_in_guidance_or_seed_alone_share_a_batch() -> None:
    prompts = [make_prompt("a", guidance=2.0, seed=1), make_prompt("b", guidance=9.0, seed=2)]
    assert list(pack_batches(prompts, 2)) == [tuple(prompts)]


def test_batches_are_made_as_the_prompts_stream_by() -> None:
    def prompts() -> Iterator[Prompt]:
        for key in ("a", "b"):
            yield make_prompt(key)
        raise AssertionError("read on after the batch was full")

    assert next(pack_batches(prompts(), 2)) == (make_prompt("a"), make_prompt("b"))


def test_rejects_pass_through_at_once_and_are_never_kept_in_memory() -> None:
    def prompts() -> Iterator[Prompt | Reject]:
        yield make_prompt("a")
        yield Reject("prompts.txt", 2, "empty")
        raise AssertionError("read on before the reject was told")

    assert next(pack_batches(prompts(), 2)) == Reject("prompts.txt", 2, "empty")


@pytest.mark.parametrize(("above", "guided"), [(None, [False, True]), (0.0, [True, True]), (100.0, [False, False])])
def test_rows_with_and_without_guidance_do_not_run_together_wherever_the_models_guidance_begins(
    above: float | None, guided: list[bool]
) -> None:
    rows = [make_row("a", row=0, guidance=0.5), make_row("b", row=1, guidance=3.5)]
    prompts = list(Planner(JOB, None, above).prompts(rows, None))
    assert [prompt.is_guided for prompt in prompts if isinstance(prompt, Prompt)] == guided
    assert len(list(pack_batches(prompts, 4))) == len(set(guided))


def named(said: str | None) -> tuple[Lora, ...]:
    """What a job with a LoRA of its own finds for a row."""
    if said == "gone":
        raise ModelError("LoRA gone: no such file")
    return () if said == "<none>" else (Lora(said or "job", 1.0, f"of {said or 'job'}"),)


def test_a_rows_lora_replaces_the_jobs_and_rows_are_packed_by_it() -> None:
    rows = [make_row(row=place, lora=said) for place, said in enumerate([None, "a", "<none>", "a", None, "<none>"])]
    prompts = list(Planner(JOB, loras=named).prompts(rows, None))
    paths = [[one.path for one in prompt.lora] for prompt in prompts if isinstance(prompt, Prompt)]
    assert paths == [["job"], ["a"], [], ["a"], ["job"], []]
    batches = [batch for batch in pack_batches(prompts, 8) if not isinstance(batch, Reject)]
    assert [[prompt.line for prompt in batch] for batch in batches] == [[1, 5], [2, 4], [3, 6]]


def test_lora_changes_no_seed_and_no_key() -> None:
    with_it, without = (
        [(prompt.key, prompt.seed) for prompt in Planner(JOB, loras=named).prompts([make_row(lora=said)], None)
         if isinstance(prompt, Prompt)] for said in ("a", "<none>")
    )  # fmt: skip
    assert with_it == without


def test_a_file_that_cannot_be_used_is_told_with_the_place_of_its_row() -> None:
    with pytest.raises(ModelError, match=r"^prompts.txt:1: LoRA gone: no such file$"):
        list(Planner(JOB, loras=named).prompts([make_row(lora="gone")], None))
