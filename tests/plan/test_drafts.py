"""Drafts of plans: one whose planner may be alive is never swept away, those of the dead are."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen import files
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.plan import drafts
from batchgen.plan.drafts import new_draft, sweep_drafts
from batchgen.plan.store import Sources, load_plan, save_plan
from batchgen.plan_dir import PlanDir
from batchgen.types import Shard
from tests.builders import finish_run, gone_process, make_config, plan_run
from tests.plan.test_store import make_shard


def draft_of(run: RunDir, name: str, **owner: object) -> PlanDir:
    draft = new_draft(PlanDir(run.root / name))
    if owner:
        draft.owner.write_text(json.dumps(owner))
    draft.shard(0).write_text("{}\n")
    return draft


def test_a_draft_of_a_planner_that_may_be_alive_stays(tmp_path: Path) -> None:
    run = plan_run(tmp_path).run
    elsewhere = process.identity() | {"host": "another-machine"}
    alive = [draft_of(run, "plan-001"), draft_of(run, "plan-001", target="plan-001", process=elsewhere)]
    sweep_drafts(run)
    assert all(draft.shard(0).exists() for draft in alive)


def test_what_can_become_no_plan_any_more_is_removed(tmp_path: Path) -> None:
    run = plan_run(tmp_path).run
    draft_of(run, "plan-001", target="plan-001", process=gone_process())
    draft_of(run, "plan")  # that plan is there
    draft_of(run, "plan-001").owner.unlink()  # of a batchgen before this one
    (run.root / f"plan.{'0' * 32}").mkdir()
    (run.root / f"plan.{'1' * 32}.swept").mkdir()
    (run.root / "plan.txt").write_text("a user's")
    sweep_drafts(run)
    assert sorted(path.name for path in run.root.glob("plan*")) == ["plan", "plan.txt"]


def test_a_command_that_finishes_leaves_an_extension_under_way_alone(tmp_path: Path) -> None:
    """The extension's rows are read slowly while another command sweeps: it must come to be a plan all the same."""
    plan = plan_run(tmp_path)
    finish_run(plan)
    begun, swept = threading.Event(), threading.Event()

    def shards() -> Iterator[Shard]:
        yield make_shard(1, ("b",))
        begun.set()
        assert swept.wait(10)
        yield make_shard(2, ("c",))

    sources = Sources(make_config(tmp_path), [], {"model": "m"})
    kept = []
    thread = threading.Thread(
        target=lambda: kept.append(
            save_plan(plan.run, plan.run.extension(1), "extend", 1, plan.run_id, sources, shards())
        )
    )
    thread.start()
    assert begun.wait(10)
    sweep_drafts(plan.run)
    swept.set()
    thread.join()
    assert kept == [True]
    assert [load_plan(plan.run).shard(index)[0].keys for index in (1, 2)] == [["b"], ["c"]]
    assert not list(plan.run.root.glob("plan*/owner.json"))


def test_a_draft_that_is_swept_before_it_says_whose_it_is_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Path] = []

    def write_new(path: Path, data: bytes) -> None:
        if not swept:
            swept.append(path)
            path.parent.rmdir()
        files.write_new(path, data)

    monkeypatch.setattr(drafts, "write_new", write_new)
    draft = new_draft(PlanDir(tmp_path / "plan"))
    assert draft.owner.is_file() and draft.root != swept[0].parent


def test_who_loses_to_another_plan_is_told(tmp_path: Path) -> None:
    plan = plan_run(tmp_path)
    sources = Sources(make_config(tmp_path), [], {"model": "m"})

    def shards() -> Iterator[Shard]:
        assert save_plan(
            plan.run, plan.run.extension(1), "extend", 1, plan.run_id, sources, [make_shard(1, ("first",))]
        )
        sweep_drafts(plan.run)  # by whoever finishes; this draft comes too late
        yield make_shard(1, ("second",))

    assert not save_plan(plan.run, plan.run.extension(1), "extend", 1, plan.run_id, sources, shards())
    planned: Shard = load_plan(plan.run).shard(1)[0]
    assert planned.keys == ["first"]
