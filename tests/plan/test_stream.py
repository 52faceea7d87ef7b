"""A plan that is made in pieces, by raised limits and appended rows, holds what a plan of all rows holds."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchgen.config.schema import Config
from batchgen.errors import PromptError, ResumeError
from batchgen.paths import RunDir
from batchgen.plan.inputs import inputs_of, match_inputs
from batchgen.plan.store import Plan, Sources, load_plan, save_plan
from batchgen.plan.stream import plan_shards, rows_to_add
from batchgen.prompts import Found
from batchgen.types import Prompt, PromptFile
from tests.builders import make_config, write_rows

TEXTS = st.sampled_from(["fox", "hen", "owl", "ape"])
GOOD = st.fixed_dictionaries(
    {"prompt": st.one_of(TEXTS, TEXTS, st.lists(st.one_of(TEXTS, st.just("")), min_size=1, max_size=3))},
    optional={
        "negative_prompt": st.sampled_from(["", "blurry", "<none>"]),
        "seed": st.integers(0, 99),
        "width": st.sampled_from([64, 128]),
        "guidance": st.sampled_from([1.0, 5.0]),
        "images_per_prompt": st.integers(1, 3),
        "key": st.sampled_from(["a", "b", "c", "d", "e", "f"]),  # sometimes twice
        "note": st.integers(),
    },
)
BAD = st.sampled_from([{"prompt": ""}, {"steps": 2}, {"prompt": "fox", "seed": -1}])
ROWS = st.lists(st.one_of(GOOD, GOOD, GOOD, BAD), min_size=1, max_size=24)


class Pieces:
    """A run that is planned piece by piece, without a model."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.paths = [folder / name for name in files]
        self.run = RunDir(folder / "run")
        self.config = make_config(folder, job__prompts=[str(path) for path in self.paths])

    def write(self, *contents: list[dict[str, Any]]) -> None:
        """Write the files; what there was before is the beginning of what is there now."""
        for path, rows in zip(self.paths, contents, strict=True):
            write_rows(path, rows)

    def plan(self, limit: int | None = None) -> Plan | None:
        """Plan the rows, or what came to them; None where none can be used yet."""
        self.config.job.limit = limit
        there = bool(self.run.plans())
        found = first(self.config, self.paths) if not there else more(load_plan(self.run), self.config, self.paths)
        if found is None:
            return load_plan(self.run)
        entries, shards = found
        number = len(self.run.plans())
        first_shard = load_plan(self.run).shard_count if there else 0
        target = self.run.extension(number) if there else self.run.plan
        kind = "extend" if there else "run"
        try:
            assert save_plan(self.run, target, kind, first_shard, "a" * 32, Sources(self.config, entries, {}), shards)
        except PromptError:
            assert not target.root.exists()
        return load_plan(self.run) if self.run.plans() else None


def first(config: Config, paths: list[Path]) -> Any:
    files = list(map(PromptFile, paths))
    return inputs_of(files), plan_shards(config, files)


def more(plan: Plan, config: Config, paths: list[Path]) -> Any:
    files = inputs_of(list(map(PromptFile, paths)))
    matched = match_inputs(plan.inputs, files)
    assert not matched.lost
    return rows_to_add(plan, config, matched, files, [*matched.grown, *matched.new], Found())


def images(plan: Plan) -> dict[str, Prompt]:
    prompts = list(plan.prompts())
    found = {prompt.key: prompt for prompt in prompts}
    assert len(found) == len(prompts), "no key is planned twice"
    return found


def rejects(plan: Plan) -> list[tuple[str, int]]:
    listed = [line for segment in plan.segments for line in segment.files.rejects.read_text().splitlines()]
    assert len(listed) == sum(segment.rejects for segment in plan.segments)
    return [(Path(one["file"]).name, one["line"]) for one in map(json.loads, listed)]


def shards_of(plan: Plan) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(plan.run.root.glob("plan*/0*.jsonl"))}


@settings(deadline=None, max_examples=25)
@given(rows=ROWS, limits=st.lists(st.integers(1, 24), max_size=3))
@example(rows=[{"prompt": "fox", "key": "a"}, {"prompt": ["fox", "hen"], "key": "a"}], limits=[1])
def test_raised_limits_plan_the_same_images_as_one_plan_of_all_rows(rows: list[Any], limits: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, pieces = Pieces(Path(folder), "p.jsonl"), Pieces(Path(folder), "p.jsonl")
        whole.run = RunDir(Path(folder) / "whole")
        whole.write(rows)
        expected = whole.plan()
        before: dict[str, bytes] = {}
        for limit in [*sorted(limits), None]:
            plan = pieces.plan(limit)
            if plan is not None:
                assert before.items() <= shards_of(plan).items(), "what is planned never changes"
                before = shards_of(plan)
        assert (plan is None) == (expected is None)
        if plan is not None and expected is not None:
            assert images(plan) == images(expected)
            # A row of several texts lists each that is refused. Where nothing usable follows them, the last ones are
            # left to a later extension.
            assert Counter(rejects(plan)) <= Counter(rejects(expected)), "each is counted once"
            assert pieces.plan(None) == plan, "there is nothing more to add"


@settings(deadline=None, max_examples=25)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 24), max_size=3), second=ROWS)
def test_appended_rows_and_files_plan_the_same_images(rows: list[Any], cuts: list[int], second: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, pieces = Pieces(Path(folder), "p.jsonl", "q.jsonl"), Pieces(Path(folder), "p.jsonl")
        whole.run = RunDir(Path(folder) / "whole")
        plan = None
        for cut in sorted(cuts):
            pieces.write(rows[:cut])
            plan = pieces.plan() or plan
        whole.write(rows, second)
        expected = whole.plan()
        both = Pieces(Path(folder), "p.jsonl", "q.jsonl")
        plan = both.plan() or plan
        assert (plan is None) == (expected is None)
        if plan is not None and expected is not None:
            assert images(plan) == images(expected)


@settings(deadline=None, max_examples=25)
@given(files=st.tuples(ROWS, ROWS, ROWS), cuts=st.tuples(*[st.integers(0, 24)] * 3))
def test_rows_appended_to_any_of_three_files_never_change_what_is_planned(files: Any, cuts: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = ("a.jsonl", "b.jsonl", "c.jsonl")
        pieces, whole = Pieces(Path(folder), *names), Pieces(Path(folder), *names)
        whole.run = RunDir(Path(folder) / "whole")
        pieces.write(*(rows[:cut] for rows, cut in zip(files, cuts, strict=True)))
        before = pieces.plan()
        pieces.write(*files)
        plan, expected = pieces.plan(), whole.plan()
        assert (plan is None) == (expected is None)
        if plan is None or expected is None:
            return
        assert before is None or images(before).items() <= images(plan).items()
        if not any("key" in row for rows in files for row in rows):
            assert images(plan).keys() == images(expected).keys()
        if not any(row.keys() & {"key", "seed"} for rows in files for row in rows):
            # The later of two rows with the same text is the one that was planned later: no seed is drawn twice.
            seeds = [
                sorted((one.prompt, one.seed, one.copy) for one in images(each).values()) for each in (plan, expected)
            ]
            assert len(set(seeds[0])) == len(seeds[0]) == len(seeds[1])


def test_the_rest_of_a_file_comes_before_a_file_that_is_new(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, "p.jsonl")
    pieces.write([{"prompt": f"p {n}"} for n in range(4)])
    pieces.plan(limit=2)
    both = Pieces(tmp_path, "p.jsonl", "q.jsonl")
    write_rows(both.paths[1], ["q 0", "q 1"])
    plan = both.plan(limit=5)
    assert plan is not None
    assert sorted(images(plan)) == [*(f"00000000000{n}-00" for n in range(4)), "001000000000-00"]
    longer = both.plan(limit=9)
    assert longer is not None and sorted(images(longer))[-1] == "001000000001-00"
    assert [one["file"] for one in longer.inputs] == [str(path) for path in both.paths]


def test_a_limit_below_what_is_planned_is_refused_and_says_what_is_possible(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, "p.jsonl")
    pieces.write([{"prompt": f"p {n}"} for n in range(6)])
    pieces.plan(limit=5)
    with pytest.raises(ResumeError, match=r"job\.limit=4, .* has 5 rows planned: .*\n.*job\.limit=5 or more"):
        pieces.plan(limit=4)
    pieces.write([{"prompt": f"p {n}"} for n in range(9)])
    with pytest.raises(ResumeError, match=r"job\.limit=5, .* no more can be added.\n.*job\.limit=6 or more"):
        pieces.plan(limit=5)


def test_a_limit_above_the_number_of_rows_adds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = Pieces(tmp_path, "p.jsonl")
    pieces.write([{"prompt": "fox"}, {"prompt": "hen"}])
    plan = pieces.plan(limit=2)
    assert [pieces.plan(limit) for limit in (3, None)] == [plan, plan]
    assert capsys.readouterr().err == ""
    pieces.write([{"prompt": "fox"}, {"prompt": "hen"}, {"prompt": ""}])
    assert pieces.plan() == plan, "nothing that can be used was appended"


def test_a_raised_limit_says_where_the_rest_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = Pieces(tmp_path, "p.jsonl")
    pieces.write([{"prompt": "fox", "key": "a"}, {"prompt": "hen"}, {"prompt": "owl", "key": "a"}])
    plan = pieces.plan(limit=2)
    assert pieces.plan() == plan
    said = capsys.readouterr().err
    assert "job.limit allows more rows, but the only row cannot be used" in said and "jsonl:3: duplicate" in said


def test_where_nothing_is_usable_the_first_reason_and_what_to_do_are_told(tmp_path: Path) -> None:
    config = make_config(tmp_path, [])
    with pytest.raises(PromptError, match=r"hold no rows: .*prompts\.jsonl\. Write a prompt into them"):
        list(plan_shards(config, [PromptFile(tmp_path / "prompts.jsonl")]))
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": ""}, {"note": 1}])
    with pytest.raises(PromptError, match=r"none of the 2 rows .*jsonl:1: empty prompt; correct the rows"):
        list(plan_shards(config, [PromptFile(tmp_path / "prompts.jsonl")]))
