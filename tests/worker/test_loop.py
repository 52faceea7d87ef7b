"""Which shard a worker takes, when, and what becomes of one whose device hangs."""

import threading

import pytest

from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.shards.leases import Lease, Watch
from batchgen.worker.loop import Worker
from tests.builders import full_attempt, plan_run
from tests.commands import (
    FAKE,
    front,
    samples,
    verify,
    worker_events,
    write_prompts,
)
from tests.fake_engine import FakeEngine

PROMPTS = [f"prompt {place}" for place in range(24)]
WORKER = [*FAKE[:-1], "worker"]
ELSEWHERE = process.identity() | {"host": "another-machine"}


@pytest.fixture
def plan(tmp_path):
    """Six shards of two batches of two."""
    return plan_run(tmp_path, PROMPTS, job__batch_size=2, output__batches_per_shard=2, launch__lease_timeout_s=0.4)


def make(plan, rank=0, world=1, load=lambda plan: FakeEngine()):
    return Worker(plan, f"w{rank}", rank, world, load, threading.Event())


def taken(plan):
    """The shards that were begun, in order, over all workers."""
    return [event["shard"] for event in worker_events(plan.run.root) if event["event"] == "shard"]


def hold(plan, shard, who=ELSEWHERE):
    """A lease of somebody of whom nothing is known but this."""
    lease = Lease.take(plan.run, shard, "other", Watch(0.1))
    assert lease is not None
    content = plan.run.lease(shard).read_text()
    plan.run.lease(shard).write_text(content.replace(process.identity()["host"], who["host"]))


@pytest.mark.parametrize("rank, order", [(0, [0, 1, 2, 3, 4, 5]), (1, [1, 2, 3, 4, 5, 0]), (4, [4, 5, 0, 1, 2, 3])])
def test_a_worker_begins_at_a_place_of_its_own_and_goes_round_from_there(plan, rank, order):
    assert make(plan, rank, 5).work() == EXIT_WHOLE
    assert taken(plan) == order


def test_no_shard_belongs_to_a_rank_and_what_somebody_holds_comes_last(plan):
    for shard in (0, 3):
        assert full_attempt(plan, shard).commit()
    hold(plan, 2)  # its holder never comes back
    assert make(plan, 1, 2).work() == EXIT_WHOLE
    assert taken(plan) == [4, 5, 1, 2]  # it begins in the middle of those that are free


def test_the_model_is_loaded_and_a_policy_made_before_a_lease_is_taken(plan):
    held = []

    class Looking(FakeEngine):
        def prepare(self, policy):
            held.append(len(list(plan.run.leases.iterdir())))
            return super().prepare(policy)

    def load(plan):
        held.append(len(list(plan.run.leases.iterdir())))
        return Looking()

    assert make(plan, load=load).work() == EXIT_WHOLE
    assert held[:2] == [0, 0]
    assert list(plan.run.leases.iterdir()) == []


def test_who_lost_a_shard_while_loading_takes_another(plan):
    def load(plan):
        hold(plan, 0)
        return FakeEngine()

    assert make(plan, load=load).work() == EXIT_WHOLE
    assert sorted(taken(plan)) == list(range(6)) and taken(plan)[-1] == 0


def test_who_waits_looks_less_often_the_longer_it_has_waited(plan, monkeypatch):
    for shard in range(1, 6):
        assert full_attempt(plan, shard).commit()
    plan.config.launch.lease_timeout_s = 3600
    hold(plan, 0)
    waits = []

    class Stop(threading.Event):
        def wait(self, seconds=None):
            waits.append(seconds)
            if sum(waits) > 60:
                assert full_attempt(plan, 0).commit()
                plan.run.lease(0).unlink()

    assert Worker(plan, "w", 0, 1, lambda plan: FakeEngine(), Stop()).work() == EXIT_WHOLE
    assert waits == sorted(waits) and (waits[0], waits[-1]) == (0.5, 5.0)
    assert taken(plan) == []


def test_who_finds_nothing_free_loads_nothing_and_may_leave(plan):
    plan.config.launch.wait_for_others = False
    for shard in range(6):
        hold(plan, shard)

    def load(plan):
        raise AssertionError("nothing is to be loaded")

    assert make(plan, load=load).work() == EXIT_WHOLE
    assert [event["event"] for event in worker_events(plan.run.root)] == ["start", "left"]


@pytest.mark.parametrize("stays", [True, False])
def test_who_stays_takes_over_what_a_dead_worker_leaves(plan, stays):
    plan.config.launch.wait_for_others = stays
    hold(plan, 3)
    assert make(plan).work() == EXIT_WHOLE
    assert (3 in taken(plan)) == stays


def test_steps_decodes_and_appends_keep_the_lease(plan, monkeypatch):
    beats = []
    real = Lease.beat

    def counted(self, rows=None):
        beats.append(rows)
        real(self, rows)

    monkeypatch.setattr(Lease, "beat", counted)
    assert make(plan).work() == EXIT_WHOLE
    # A unit of two: one denoising, its rows, a decode for each image; then each image encoded, and the append.
    assert len(beats) >= 12 * (1 + 1 + 1 + 2 + 1)
    assert max(filter(None, beats)) == 4


def test_what_a_hanging_worker_has_is_made_by_another_and_the_run_ends(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 32)
    arguments = ("launch.workers=2", "launch.lease_timeout_s=1")
    done = front(tmp_path / "run", prompts, *arguments, FAKE_HANGING="1", FAKE_STEP_S="0.05", timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert "whole" in verify(tmp_path / "run").stdout
    assert front(tmp_path / "other", prompts).returncode == 0
    assert samples(tmp_path / "run") == samples(tmp_path / "other")


def test_a_command_whose_workers_left_the_rest_to_others_says_that_it_goes_on(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 16)
    run_dir = RunDir(tmp_path / "run")
    front(tmp_path / "run", prompts, "launch.wait_for_others=false")
    run_dir.index.unlink()
    run_dir.manifest(1).unlink()
    run_dir.tar(1).unlink()
    lease = Lease.take(run_dir, 1, "other", Watch(60))
    assert lease is not None
    left = front(tmp_path / "run", prompts, "launch.wait_for_others=false")
    assert left.returncode == EXIT_INTERRUPTED
    assert "no shard is left for the workers here" in left.stderr
    lease.release()
    assert front(tmp_path / "run", prompts, "launch.wait_for_others=false").returncode == EXIT_WHOLE
