"""A plan gives way to another only while nothing of it was begun, whoever else is at work."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.dry_run import summary
from batchgen.errors import ResumeError
from batchgen.plan import replan
from batchgen.plan.store import load_plan
from batchgen.prepare import look_up, prepare
from tests.builders import full_attempt, gone_process, make_config, plan_run

PROMPTS = [f"fox {number}" for number in range(4)]


def test_a_plan_of_which_nothing_was_begun_gives_way_and_is_kept(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    (plan.run.policies / "fake-64x64.json").write_text("{}")
    corrected = make_config(tmp_path, PROMPTS, job__steps=9)
    assert summary(plan.run, corrected, look_up(corrected)).prompts == 4
    assert load_plan(plan.run).run_id == plan.run_id, "a dry run changes nothing"
    newer = prepare(plan.run, corrected)
    assert newer.run_id != plan.run_id and newer.planned.job.steps == 9
    kept = sorted(path.name for path in (plan.run.replaced / plan.run_id).iterdir())
    assert kept == ["plan", "policies"] and not list(plan.run.policies.glob("*"))


@pytest.mark.parametrize("trace", ["shards/000000.json", "work/000000.x.tar", "leases/000000", "slurm/jobs.json"])
def test_a_plan_that_was_begun_does_not_give_way(tmp_path: Path, trace: str) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    path = plan.run.root / trace
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ResumeError, match="job.steps: 2 -> 9"):
        prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert load_plan(plan.run).run_id == plan.run_id


def test_a_plan_that_a_worker_loads_its_model_for_does_not_give_way(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    corrected = make_config(tmp_path, PROMPTS, job__steps=9)
    with replan.at_work(plan), pytest.raises(ResumeError, match="job.steps: 2 -> 9"):
        prepare(plan.run, corrected)
    (plan.run.leases / "at-work.killed").write_text(json.dumps({"process": gone_process()}))
    assert prepare(plan.run, corrected).run_id != plan.run_id


def test_a_worker_that_begins_while_a_plan_gives_way_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    looks: list[bool] = []
    real = replan.is_untouched

    def is_untouched(run: Any) -> bool:
        if not looks:
            looks.append(True)
            (plan.run.work / f"000000.{'0' * 32}.tar").touch()
        return real(run)

    monkeypatch.setattr(replan, "is_untouched", is_untouched)
    assert not replan.give_way(plan)
    assert load_plan(plan.run).run_id == plan.run_id and not list(plan.run.replaced.iterdir())


def test_a_worker_of_a_replaced_plan_never_commits_into_the_next(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    attempt = full_attempt(plan)
    moved = tmp_path / "aside"
    plan.run.work.rename(moved)  # it was asleep: nothing of it was seen
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    moved.rename(plan.run.work)
    with pytest.raises(ResumeError, match="again with different settings"):
        attempt.commit()
    assert not list(plan.run.shards.iterdir()) and not list(plan.run.work.iterdir())
    assert full_attempt(newer).commit()


def test_who_begins_by_a_plan_that_was_just_replaced_is_told_at_once(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    with pytest.raises(ResumeError, match="again with different settings"), replan.at_work(plan):
        pass
    newer.run.create_directories()
    assert not list(plan.run.leases.iterdir())


def test_two_commands_that_replace_one_plan_leave_the_next_alone(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    newer = prepare(plan.run, make_config(tmp_path, PROMPTS, job__steps=9))
    assert not replan.give_way(plan), "this command had judged the plan before"
    assert load_plan(plan.run).run_id == newer.run_id


def test_what_a_planning_left_that_was_cut_off_after_a_plan_gave_way_is_no_obstacle(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    assert replan.give_way(plan)
    assert prepare(plan.run, make_config(tmp_path, PROMPTS)).run_id != plan.run_id


def test_marks_of_killed_processes_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    plan = plan_run(tmp_path, PROMPTS)
    with replan.at_work(plan):
        plan.run.new_mark().write_text(json.dumps({"process": gone_process()}))
        assert len(plan.run.marks()) == 2
        replan.sweep_marks(plan.run)
        assert len(plan.run.marks()) == 1
    assert plan.run.marks() == []
