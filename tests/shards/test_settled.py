"""Which shards no worker has to look at any more."""

from pathlib import Path

import pytest

from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards import attempt as shards
from batchgen.shards.settled import is_settled, settled_by_name
from tests.builders import finish_run, full_attempt, plan_run


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three shards of one batch of two."""
    return plan_run(tmp_path, [f"fox {number}" for number in range(6)], output__batches_per_shard=1)


def cut_off(plan: Plan, shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that ended between the link of the manifest and that of the tar."""
    attempt = full_attempt(plan, shard)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish", lambda *_: None)
        assert attempt.commit()


def test_a_shard_is_settled_once_manifest_and_tar_have_their_names(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    full_attempt(plan, 0)
    assert not is_settled(plan.run, 0) and settled_by_name(plan.run) == (set(), set())
    assert full_attempt(plan, 1).commit()
    cut_off(plan, 2, monkeypatch)
    assert settled_by_name(plan.run) == ({1, 2}, {1})


def test_looking_closer_publishes_a_shard_whose_commit_was_cut_off(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(plan, 0, monkeypatch)
    assert is_settled(plan.run, 0)
    assert settled_by_name(plan.run) == ({0}, {0}) and plan.run.attempts() == []


def test_a_broken_shard_keeps_no_worker_from_the_others(plan: Plan) -> None:
    finish_run(plan)
    plan.run.tar(1).unlink()
    assert is_settled(plan.run, 1)
    assert settled_by_name(plan.run) == ({0, 1, 2}, {0, 2})


def test_names_are_enough(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    finish_run(plan)
    read: list[RunDir] = []
    monkeypatch.setattr(shards, "read_manifest", lambda run, shard: read.append(run))
    assert is_settled(plan.run, 0) and settled_by_name(plan.run)[1] == {0, 1, 2}
    assert read == []
