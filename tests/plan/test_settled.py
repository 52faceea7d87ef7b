"""How far each file is planned, and the rows that come after."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.config.schema import JobConfig
from batchgen.errors import BrokenRunError
from batchgen.plan.planner import Planner
from batchgen.plan.settled import End, numbered_prompts, numbered_rejects, recall, rows_after
from batchgen.types import Reject, Row
from tests.builders import make_row, plan_run, write_rows

ROWS = [make_row(f"row {number}", number) for number in range(4)]
FILE = ROWS[0].source


def after(rows: list[Row | Reject], end: End) -> list[str]:
    return [one.prompt if isinstance(one, Row) else one.reason for one in rows_after(rows, {FILE: end})]


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (End(), [0, 1, 2, 3]),
        (End(line=2, rows=1), [2, 3]),
        (End(line=4, rows=1), []),
        (End(line=9, rows=1), []),
    ],
)
def test_rows_up_to_the_last_planned_line_are_passed_over(end: End, left: list[int]) -> None:
    assert after(list(ROWS), end) == [f"row {number}" for number in left]


def test_a_line_of_several_rows_may_be_planned_in_part() -> None:
    rows: list[Row | Reject] = [make_row(f"caption {number}", number, line=5) for number in range(3)]
    assert after(rows, End(line=5, rows=2)) == ["caption 2"]


def test_files_without_planned_rows_are_taken_whole() -> None:
    other: list[Row | Reject] = [make_row("other", source="b.txt"), Reject("b.txt", 2, "bad")]
    assert after([*ROWS, *other], End(line=9, rows=1)) == ["other", "bad"]


def test_a_plan_knows_how_far_each_file_is_planned(tmp_path: Path) -> None:
    rows: list[str | dict[str, Any]] = [
        "fox",
        {"prompt": ""},
        {"prompt": "hen", "images_per_prompt": 3},
        {"prompt": "owl", "key": "k"},
        {"a": 1},
    ]
    second = write_rows(tmp_path / "b.jsonl", ["fox", {"prompt": "ape", "key": "l"}])
    plan = plan_run(tmp_path, rows, job__prompts=[str(tmp_path / "prompts.jsonl"), str(second)])
    rows_planned, ends = recall(plan, Planner(JobConfig()))
    assert rows_planned == 5
    assert ends == {0: End(line=5, rows=1), 1: End(line=2, rows=1)}
    assert sorted(number for number, _ in numbered_prompts(plan)) == [0, 0, 0, 0, 0, 1, 1]
    assert [(number, one.line) for number, one in numbered_rejects(plan)] == [(0, 2), (0, 5)]


def test_a_damaged_list_of_rejects_is_told(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, ["fox", {"a": 1}])
    plan.run.plan.rejects.write_text("{")
    with pytest.raises(BrokenRunError, match=r"rejects\.jsonl of the plan cannot be read"):
        recall(plan, Planner(JobConfig()))
