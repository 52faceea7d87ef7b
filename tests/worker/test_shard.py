"""One shard, made by the torch-free engine: units, what a stop leaves, and what is never lost."""

import threading
from pathlib import Path

import pytest

from batchgen.events import EventLog
from batchgen.memory.frozen import Policies, freeze
from batchgen.policy import Policy
from batchgen.shards.attempt import Attempt
from batchgen.shards.journal import read_journal
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.memory_log import WorkerRecord
from batchgen.worker import shard as generate
from batchgen.worker.shard import ShardMaker
from tests.builders import MAKER, plan_run
from tests.fake_engine import FakeEngine

PROMPTS = [f"prompt {place}" for place in range(20)]
POLICY = Policy(micro_batch=2, decode_chunk=4, tile_px=0, placement="resident", dtype="fp32", threads=1)


@pytest.fixture
def plan(tmp_path):
    return plan_run(tmp_path, PROMPTS, job__batch_size=10, output__batches_per_shard=2)


def make(plan, engine=None, stop=None):
    """One attempt at the only shard, resumed; (finished, attempt)."""
    shard, digest = plan.shard(0)
    stop = stop or threading.Event()
    lease = Lease.take(plan.run, 0, "test", Watch(60))
    assert lease is not None
    attempt = Attempt(plan.run, shard, plan.run_id, digest, "test")
    attempt.resume()
    log = EventLog(plan.run.worker_log("test"))
    worker: WorkerRecord = {"worker": "test", "host": "here", "device": "fake"}
    try:
        freeze(plan.run.policy("fake", 64, 64), lambda: POLICY)
        engine = engine or FakeEngine()
        maker = ShardMaker(engine, MAKER, Policies(plan, engine, log, "test", Watch(60), stop), worker, log, stop)
        return maker.generate(shard, attempt, lease), attempt
    finally:
        attempt.close()
        log.close()
        lease.release()


def units(attempt):
    journal = read_journal(attempt.files.journal)
    assert journal is not None
    return [(record["batch"], record["first_row"], record["images"]) for record in journal.records]


def test_a_unit_is_a_batch(plan):
    finished, attempt = make(plan)
    assert finished and units(attempt) == [(0, 0, 10), (1, 0, 10)]


def test_for_slow_models_a_unit_is_what_holds_a_minutes_work_and_ends_with_a_decode_chunk(plan, monkeypatch):
    _, quick = make(plan)
    monkeypatch.setattr(generate, "UNIT_S", 0.0)
    quick.discard()
    finished, attempt = make(plan)
    assert finished
    assert units(attempt) == [(batch, *unit) for batch in (0, 1) for unit in ((0, 4), (4, 4), (8, 2))]


class StoppingEngine(FakeEngine):
    """Is told to stop after so many micro-batches, and notes what it decoded."""

    def __init__(self, stop, after):
        self.stop = stop
        self.after = after
        self.decoded = []

    def denoise(self, texts, prompts, policy):
        self.after -= 1
        if self.after == 0:
            self.stop.set()
        return super().denoise(texts, prompts, policy)

    def decode(self, latents, policy):
        self.decoded += [prompt.key for prompt in latents]
        return super().decode(latents, policy)


@pytest.mark.parametrize("after, kept", [(1, 0), (2, 4), (3, 4), (4, 8), (5, 10), (7, 14)])
def test_a_stop_keeps_what_is_finished_and_a_resume_makes_the_rest_alone(plan, after, kept):
    _, undisturbed = make(plan)
    whole = Path(undisturbed.files.tar).read_bytes()
    undisturbed.discard()
    stop = threading.Event()
    first = StoppingEngine(stop, after)
    finished, attempt = make(plan, first, stop)
    assert not finished and attempt.rows == kept == len(first.decoded)
    second = StoppingEngine(threading.Event(), -1)
    finished, again = make(plan, second)
    assert finished and len(second.decoded) == 20 - kept
    assert Path(again.files.tar).read_bytes() == whole


def test_an_error_while_writing_ends_it_and_what_was_recorded_stays(plan, monkeypatch):
    real = Attempt.append
    calls = []

    def full_disk(self, samples, record):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(self, samples, record)

    monkeypatch.setattr(Attempt, "append", full_disk)
    with pytest.raises(OSError, match="No space"):
        make(plan)
    monkeypatch.undo()
    engine = StoppingEngine(threading.Event(), -1)
    finished, attempt = make(plan, engine)
    assert finished and len(engine.decoded) == 10


def test_no_unit_is_decoded_before_the_one_before_it_is_on_the_disk(plan, monkeypatch):
    monkeypatch.setattr(generate, "UNIT_S", 0.0)
    appended: list[str] = []
    real = Attempt.append

    def slowly(self, samples, record):
        threading.Event().wait(0.05)
        real(self, samples, record)
        appended.extend(sample.key for sample in samples)

    monkeypatch.setattr(Attempt, "append", slowly)

    class Checking(StoppingEngine):
        def decode(self, latents, policy):
            assert appended == self.decoded
            return super().decode(latents, policy)

    finished, _ = make(plan, Checking(threading.Event(), -1))
    assert finished
