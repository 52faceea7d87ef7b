"""A quick look: names of all shards, manifests and sizes for the newest; failed images as far as they are known."""

from pathlib import Path

import pytest

from batchgen.plan.store import Plan
from batchgen.shards import glance as module
from batchgen.shards.glance import glance
from tests.builders import finish_run, full_attempt, plan_run, truncate


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Six shards of two; an image of the first and one of the last failed."""
    return plan_run(tmp_path, [f"fox {number}" for number in range(12)], output__batches_per_shard=1)


def failing(plan: Plan, *shards: int) -> list[str]:
    return [plan.shard(shard)[0].keys[0] for shard in shards]


def test_all_of_a_small_run_is_looked_at(plan: Plan) -> None:
    bad = failing(plan, 0)
    for shard in range(3):
        full_attempt(plan, shard, bad).commit()
    seen = glance(plan)
    assert (list(seen.failed), seen.failed_images, seen.is_partial) == (bad, 1, False)
    assert (set(seen.states.whole), set(seen.states.open)) == ({0, 1, 2}, {3, 4, 5})
    truncate(plan.run.tar(0), 1)
    assert "shard 000000's tar has" in glance(plan).states.broken[0]


def test_of_a_large_run_the_newest_shards_are_looked_at(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 2)
    for shard in range(5):
        full_attempt(plan, shard, failing(plan, 0, 4)).commit()
    seen = glance(plan)
    assert (list(seen.failed), seen.failed_images) == (failing(plan, 4), None), "how many there are is not known"
    assert seen.is_partial and seen.looked_at == 2
    truncate(plan.run.tar(0), 1)
    assert glance(plan).states.broken == {}
    for shard in range(4):
        plan.run.tar(shard).unlink()
    assert set(glance(plan).states.broken) == {0, 1, 2, 3}, "a name that lacks is always seen"


def test_of_a_large_run_that_is_done_the_index_counts(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 1)
    finish_run(plan, failing(plan, 0, 5))
    seen = glance(plan)
    assert (seen.failed_images, list(seen.failed)) == (2, failing(plan, 5))
    plan.run.index.unlink()
    assert (glance(plan).failed_images, list(glance(plan).failed)) == (2, failing(plan, 0, 5))


def test_what_is_known_is_not_read_again(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    full_attempt(plan, 0).commit()
    before = glance(plan)
    monkeypatch.setattr(module, "failed_samples", lambda *_: 1 / 0)
    assert glance(plan, before) is before
