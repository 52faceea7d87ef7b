"""How many calls to the file system a shard costs, counted by strace on a real worker with the fake engine."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from batchgen.machine import process
from batchgen.plan.store import Plan
from batchgen.shards.leases import Lease, Watch
from tests.builders import full_attempt, plan_run
from tests.commands import FAKE

# Those that a network file system answers: they name a path, or force data to the disk.
ASKED = ("open", "openat", "stat", "newfstatat", "lstat", "link", "unlink", "rename", "mkdir", "readlink", "fsync")
MADE = 12  # by the worker that is counted
ELSEWHERE = "another-machine"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def calls_a_shard(plan: Plan, trace: Path) -> list[str]:
    """The calls below the run's directory, from one commit to the one ten shards later, for each of these shards."""
    worker = [*FAKE[:-1], "worker", str(plan.run.root), "0", "1"]
    strace = ["strace", "-f", "-y", "-e", "trace=file,desc", "-o", str(trace)]
    subprocess.run([*strace, *worker], check=True, capture_output=True, timeout=120)
    lines = [line.partition(" ")[2].strip() for line in trace.read_text().splitlines() if str(plan.run.root) in line]
    commits = [place for place, line in enumerate(lines) if re.match(r'link\w*\(.*\.json", .*shards/', line)]
    assert len(commits) == MADE
    return [line for line in lines[commits[0] : commits[10]] if line.startswith(tuple(f"{name}(" for name in ASKED))]


def planned(folder: Path, shards: int) -> Plan:
    """A plan of shards of one batch whose workers leave when all that is left is held by others."""
    folder.mkdir()
    prompts = [f"fox {number}" for number in range(2 * shards)]
    return plan_run(folder, prompts, output__batches_per_shard=1, launch__wait_for_others=False)


@pytest.mark.slow
def test_a_shard_costs_at_most_45_calls_however_many_shards_and_workers_there_are(tmp_path: Path) -> None:
    alone = calls_a_shard(planned(tmp_path / "alone", MADE), tmp_path / "alone.txt")
    assert len(alone) / 10 <= 45, "\n".join(alone[: len(alone) // 10])
    plan = planned(tmp_path / "crowd", 150 + MADE + 50)
    for shard in range(150):
        assert full_attempt(plan, shard).commit()
    for shard in range(150 + MADE, plan.shard_count):
        lease = Lease.take(plan.run, shard, "other", Watch(60))
        assert lease is not None
        content = plan.run.lease(shard).read_text()
        plan.run.lease(shard).write_text(content.replace(process.identity()["host"], ELSEWHERE))
        full_attempt(plan, shard).close()
    crowd = calls_a_shard(plan, tmp_path / "crowd.txt")
    assert len(crowd) == len(alone)
