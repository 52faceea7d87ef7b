"""A batch that is made in pieces, after crashes, on a real model: the other rows keep their bits."""

import tarfile
import threading
from pathlib import Path

import pytest

pytest.importorskip("torch")

from batchgen.events import EventLog
from batchgen.memory.frozen import Policies, freeze
from batchgen.models.find import ModelFiles
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.policy import Policy
from batchgen.shards.attempt import Attempt
from batchgen.shards.failures import Crash
from batchgen.shards.leases import Lease, Watch
from batchgen.worker.shard import ShardMaker
from tests.builders import MAKER, plan_run
from tests.pipeline.small_models import save

POLICY = Policy(micro_batch=8, decode_chunk=4, tile_px=0, placement="resident", dtype="fp32", threads=1)
ROWS = 14  # a call of 8 and one of 6, padded to 8; chunks of 4, 4, 4 and 2


def crash(first_row, stop_row):
    return Crash(0, (first_row, stop_row), "SIGSEGV", "gpu", 1, "now", Path())


def made(plan, engine, crashes):
    """{member name: bytes} of the only shard's tar."""
    shard, digest = plan.shard(0)
    lease = Lease.take(plan.run, 0, "test", Watch(60))
    assert lease is not None
    attempt = Attempt(plan.run, shard, plan.run_id, digest, "test")
    log = EventLog(plan.run.worker_log("test"))
    freeze(plan.run.policy(engine.device_kind, 64, 64), lambda: POLICY)
    policies = Policies(plan, engine, log, "test", Watch(60), threading.Event())
    maker = ShardMaker(
        engine, MAKER, policies, {"worker": "test", "host": "here", "device": "cpu"}, log, threading.Event()
    )
    assert maker.generate(shard, attempt, lease, (), crashes)
    lease.release()
    with tarfile.open(attempt.files.tar) as tar:
        found = {member.name: tar.extractfile(member.name).read() for member in tar}  # type: ignore[union-attr]
    attempt.discard()
    return found


def test_rows_of_pieces_and_beside_a_row_given_up_have_the_bits_of_an_undisturbed_run(tmp_path):
    rows = [{"prompt": f"a horse, take {row}", "negative_prompt": "cat" if row % 3 else "", "key": f"k{row}"}
            for row in range(ROWS)]  # fmt: skip
    plan = plan_run(tmp_path, rows, job__batch_size=ROWS)
    engine = DiffusersEngine(ModelFiles(save("sd15", tmp_path / "model")), "ddim", "fp32")
    whole = made(plan, engine, [])
    assert len(whole) == 3 * ROWS
    to_halve = [crash(0, ROWS)] * 2
    assert made(plan, engine, to_halve) == whole
    narrowed = [*to_halve, crash(7, 14), crash(10, 14), crash(10, 12), crash(11, 12)]
    assert made(plan, engine, narrowed) == whole
    without = made(plan, engine, [*narrowed, crash(11, 12)])
    assert without == {name: data for name, data in whole.items() if not name.startswith("k11.")}
