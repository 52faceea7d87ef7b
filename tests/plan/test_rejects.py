"""Rows that cannot be used are spoken of: how many, why the first, and the key that helps."""

import json

import pytest

from batchgen.plan.rejects import rejected_line
from tests.builders import plan_run
from tests.commands import front, run
from tests.shards.test_finish import STATUS

LATIN1 = "prompt,note\na fox,1\na caf\u00e9,2\na horse,3\nna\u00efve art,4\n".encode("latin-1")


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(LATIN1)
    return path


def test_a_run_says_what_it_left_out_when_planned_and_at_its_end(tmp_path, csv):
    said = f"2 rows were left out, the first {csv}:3: not valid utf-8: byte 0xe9; set job.encoding=cp1252"
    done = front(tmp_path / "run", csv)
    assert done.returncode == 0
    assert done.stderr.count(said) == 2 and done.stderr.count("plan/rejects.jsonl lists all") == 2
    again = front(tmp_path / "run", csv)
    assert again.returncode == 0 and "is already done" in again.stderr and again.stderr.count(said) == 1
    assert said in run(STATUS, tmp_path / "run").stdout
    assert "job.encoding=cp1252" in front(tmp_path / "dry", csv, "dry_run=true").stdout
    assert "job.encoding=cp1252" in front(tmp_path / "run", csv, "dry_run=true").stdout
    helped = front(tmp_path / "other", csv, "job.encoding=cp1252")
    assert helped.returncode == 0 and "left out" not in helped.stderr and "4 images" in helped.stderr


def test_rows_left_out_are_no_failure_and_nothing_is_said_without_any(tmp_path):
    bad = plan_run(tmp_path, [{"prompt": "a fox"}, {"steps": 3}, {"prompt": "", "steps": 3}])
    line = rejected_line(bad)
    assert line is not None and "2 rows were left out" in line and "job.columns.prompt=NAME" in line
    assert rejected_line(plan_run(tmp_path, ["a fox"], run_dir=str(tmp_path / "good"))) is None


def test_extensions_are_named_too_and_a_list_that_is_gone_hides_no_count(tmp_path):
    plan = plan_run(tmp_path, ["a fox", {"steps": 3}])
    plan.run.plan.rejects.write_text("{")
    line = rejected_line(plan)
    assert line == "1 row was left out (plan/rejects.jsonl lists all)"


def test_the_list_holds_every_reject(tmp_path, csv):
    front(tmp_path / "run", csv)
    listed = [json.loads(line) for line in (tmp_path / "run" / "plan" / "rejects.jsonl").read_text().splitlines()]
    assert [one["line"] for one in listed] == [3, 5]
