"""10,000 shards and 256 workers on a file system that takes 5 ms a call: what it costs them to share the work.

The worker, its leases and its attempts are the real ones, and so are all files, in memory. Only no image is made: a
shard takes its seconds of the virtual clock, while its lease is renewed. See `virtual`. So that this takes less than a
minute, 7,000 of the shards are there at the start; SCALE_MADE=0 has the workers make them all.
"""

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchgen.errors import EXIT_WHOLE
from batchgen.machine.growth import Growth
from batchgen.plan.records import ShardSize
from batchgen.plan.replan import at_work
from batchgen.plan.store import load_plan
from batchgen.shards.failures import RowsAt
from batchgen.shards.progress import read_progress
from batchgen.worker import loop
from batchgen.worker.loop import Worker
from tests.builders import RECORD, fake_sample, make_prompt, plan_run
from tests.fake_engine import FakeEngine
from tests.worker.virtual import Sea, Stop

SHARDS = int(os.environ.get("SCALE_SHARDS", "10000"))
WORKERS = int(os.environ.get("SCALE_WORKERS", "256"))
MADE = int(os.environ.get("SCALE_MADE", str(SHARDS * 7 // 10)))
SHARD_S = 60.0
STEPS = 8
# The last tenth of the plan is cut small.
SIZES = [4] * (SHARDS * 9 // 10) + [1] * (SHARDS - SHARDS * 9 // 10)
# The late worker and the question how far the run is come when half of the work is done.
HALF_S = SHARD_S / 4 * sum(SIZES[MADE:]) / WORKERS / 2
SAMPLE = fake_sample(make_prompt())


@dataclass
class Found:
    """What the simulation found. Times in virtual s, calls by their name, shards by their number."""

    # Of each worker: its shards, and what it spent on them beside making images and renewing leases.
    shards: Counter = field(default_factory=Counter)
    beside_s: Counter = field(default_factory=Counter)
    beats_s: float = 0.0
    idle_s: float = 0.0  # all workers together, while they waited for the last shards
    idle_calls: int = 0
    attempts: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    late_s: float = 0.0
    status_s: float = 0.0
    status_calls: int = 0
    last_s: float = 0.0  # the last shard was committed
    ended_s: float = 0.0  # and the last worker left


class Making:
    """In place of what makes a shard's images."""

    found: Found

    def __init__(self, engine, maker, policies, worker, log, stop, warm_up):
        self.host_growth, self.device_growth = Growth(), Growth()
        self.name, self.stop = worker["worker"], stop
        self.left_off_s = Sea.task().now_s

    def ready(self, shard):
        pass

    def generate(self, shard, attempt, lease, tried_again=(), crashes=()):
        task, found = Sea.task(), self.found
        found.attempts[shard.index] += 1
        if self.name == "late" and not found.shards["late"]:
            found.late_s = task.now_s - HALF_S
        found.shards[self.name] += 1
        at = RowsAt(attempt.files.at, attempt.header)
        at.note(0, 1)
        found.beside_s[self.name] += task.now_s - self.left_off_s - self.stop.taken_s()
        began_s = task.now_s
        takes_s = SHARD_S * SIZES[shard.index] / 4 * uneven(f"{self.name} {shard.index}")
        for _ in range(STEPS):
            task.sleep(takes_s / STEPS)
            lease.beat(1)
        found.beats_s += task.now_s - began_s - takes_s
        self.left_off_s = found.last_s = task.now_s
        attempt.append([replace(SAMPLE, key=key) for key in shard.keys], lambda: RECORD)
        at.close()
        return True


def uneven(name):
    """Shards take 0.9 to 1.1 times their time."""
    return 0.9 + 0.2 * (int.from_bytes(name.encode()[-10:], "big") * 2654435761 % 1009) / 1009


class Waiting(Stop):
    """How long a worker waits for others, and how often it looks at the files meanwhile."""

    def __init__(self, found):
        super().__init__()
        self.found, self.waited_s, self.calls = found, 0.0, None

    def wait(self, timeout=None):
        calls = Sea.task().calls.total()
        if self.calls is not None:
            self.found.idle_calls += calls - self.calls
        self.calls = calls
        self.waited_s += timeout
        self.found.idle_s += timeout
        return super().wait(timeout)

    def taken_s(self):
        """The time since the last shard that was spent waiting."""
        waited_s, self.waited_s, self.calls = self.waited_s, 0.0, None
        return waited_s


@pytest.fixture(scope="module")
def found():
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        with pytest.MonkeyPatch.context() as patch:
            yield simulate(folder, patch)
    finally:
        shutil.rmtree(folder)


def simulate(folder, patch):
    run = plan_run(folder, ["a fox"] * SHARDS, job__batch_size=1, output__batches_per_shard=1).run
    (folder / "made").touch()
    for shard in range(MADE):
        for path in (run.manifest(shard), run.tar(shard)):
            os.link(folder / "made", path)
    found = Making.found = Found()
    patch.setattr(loop, "ShardMaker", Making)
    patch.setattr(loop, "psutil", SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=1 << 40)))
    sea = Sea(run.root, patch)

    def load():
        plan = load_plan(run)
        return replace(plan, segments=[replace(plan.segments[0], shards=[ShardSize(1, size) for size in SIZES])])

    shared = load()  # one in memory is enough for all

    def work(name, rank):
        def works(task):
            stop = Waiting(found)
            plan = load() if name == "late" else shared
            plan.run.create_directories()
            worker = Worker(plan, name, rank, WORKERS, lambda plan: FakeEngine(), stop)
            with at_work(plan):
                assert worker.work() == EXIT_WHOLE
            found.calls += task.calls
            found.ended_s = max(found.ended_s, task.now_s)

        return works

    def ask(task):
        sea.aside_s.clear()
        read_progress(load())
        found.status_s = task.now_s - HALF_S + max(sea.aside_s.values(), default=0.0)
        found.status_calls = task.calls.total()

    for rank in range(WORKERS):
        sea.add(0.0, work(f"w{rank:04d}", rank))
    sea.add(HALF_S, work("late", 0))
    sea.add(HALF_S, ask)
    sea.run(timeout_s=600)
    assert len(run.committed() & run.tars()) == SHARDS
    return found


def most_s(counter, found):
    """The most that one worker spent on a shard, on average over its shards."""
    return max(counter[name] / shards for name, shards in found.shards.items())


@pytest.mark.slow
def test_sharing_the_work_takes_less_than_a_hundredth_and_a_half_of_a_minutes_shard(found):
    assert sum(found.beside_s.values()) / sum(found.shards.values()) < 0.6
    assert most_s(found.beside_s, found) < 0.015 * SHARD_S
    assert found.attempts.total() == len(found.attempts) == SHARDS - MADE  # and none is made twice


@pytest.mark.slow
def test_a_late_worker_begins_within_5_s(found):
    assert 0 < found.late_s < 5


@pytest.mark.slow
def test_how_far_the_run_is_can_be_told_within_5_s(found):
    assert found.status_s < 5


@pytest.mark.slow
def test_workers_that_wait_for_the_last_shards_leave_soon_and_look_seldom(found):
    assert found.ended_s - found.last_s < 7
    assert found.idle_calls / found.idle_s < 15
