"""An element leaves when others make all that is left, and not before they have shown that they live."""

import json
from pathlib import Path

import pytest

from batchgen.launch.spare import Spare
from batchgen.plan.store import Plan
from tests.builders import full_attempt, plan_run


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_run(tmp_path, [f"prompt {place}" for place in range(12)])
    assert plan.shard_count == 3
    assert full_attempt(plan, 0).commit()
    return plan


def beat(plan: Plan, worker: str, shard: int, beats: int) -> None:
    plan.run.lease(shard).write_text(json.dumps({"worker": worker, "beat": beats}))


def test_it_is_spare_once_each_open_shard_is_in_the_hands_of_another_who_lives(plan: Plan) -> None:
    spare = Spare(plan)
    beat(plan, "a", 1, 0)
    assert not spare.is_spare({"mine"}), "shard 2 can be taken"
    beat(plan, "b", 2, 0)
    assert not spare.is_spare({"mine"}), "they may have died long ago"
    beat(plan, "a", 1, 1)
    assert not spare.is_spare({"mine"}), "b may have died"
    beat(plan, "b", 2, 1)
    assert spare.is_spare({"mine"})


def test_a_worker_that_is_at_work_is_not_spare(plan: Plan) -> None:
    spare = Spare(plan)
    for beats in range(3):
        beat(plan, "a", 1, beats)
        beat(plan, "mine", 2, beats)
        assert not spare.is_spare({"mine"})


def test_who_dies_meanwhile_is_replaced_first(plan: Plan) -> None:
    spare = Spare(plan)
    for beats in range(2):
        beat(plan, "a", 1, beats)
        beat(plan, "b", 2, 0)
        assert not spare.is_spare({"mine"})
    plan.run.lease(2).unlink()
    assert not spare.is_spare({"mine"})
    beat(plan, "c", 2, 0)
    assert not spare.is_spare({"mine"}), "all of them have to show again that they live"
    beat(plan, "a", 1, 5)
    beat(plan, "c", 2, 1)
    assert spare.is_spare({"mine"})


def test_where_all_is_made_the_workers_leave_by_themselves(plan: Plan) -> None:
    for shard in (1, 2):
        assert full_attempt(plan, shard).commit()
    assert not Spare(plan).is_spare({"mine"})
