"""A made-up run of many shards and workers, on the disk within seconds: what cannot matter is one file many times."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batchgen.files import seal, to_json
from batchgen.plan.records import checksum
from batchgen.plan.store import Plan, load_plan
from tests.builders import plan_run, start_attempt

_ONE_FILE_S = 60.0


@dataclass(frozen=True, slots=True)
class Large:
    """How large the run is: its shards, how many of them are finished, and who works on the next ones."""

    shards: int
    finished: int
    workers: int


def large_run(tmp_path: Path, large: Large) -> Plan:
    """The run: finished shards, a live lease, an attempt and a log for each worker, each on a host of its own."""
    small = plan_run(tmp_path, [f"fox {number}" for number in range(4)], job__batch_size=2, output__batches_per_shard=2)
    run = small.run
    facts: Any = json.loads(run.plan.facts.read_bytes())
    first = run.plan.shard(0)
    for shard in range(1, large.shards):
        os.link(first, run.plan.shard(shard))
    facts["shards"] *= large.shards
    facts["sha256"] |= {run.plan.shard(shard).name: facts["sha256"][first.name] for shard in range(large.shards)}
    facts["checksum"] = checksum(facts)
    run.plan.facts.write_text(json.dumps(facts))
    plan = load_plan(run)
    _finish(plan, large.finished)
    for number in range(large.workers):
        _work(plan, number, large.finished + number)
    return plan


def _finish(plan: Plan, finished: int) -> None:
    run, keys = plan.run, plan.shard(0)[0].keys
    for shard in range(finished):
        manifest = {
            "format": 1,
            "run_id": plan.run_id,
            "shard": shard,
            "plan_sha256": plan.digest(shard),
            "attempt": "0" * 32,
            "bytes": 3,
            "sha256": "",
            "samples": [{"key": key, "status": "ok"} for key in keys],
        }
        run.manifest(shard).write_bytes(seal(manifest))
        if shard:
            os.link(run.tar(0), run.tar(shard))
        else:
            run.tar(0).write_bytes(b"tar")


def _work(plan: Plan, number: int, shard: int) -> None:
    """A worker that has made units for hours and holds a lease on the shard."""
    name, host = f"node{number}-0-{number:08x}", f"node{number}"
    who = {"host": host, "boot": "", "pid": 7, "started": 0.0}
    lease = {"worker": name, "process": who, "token": name, "rows": 0, "step_s": 0.5, "beat": 9}
    plan.run.lease(shard).write_text(to_json(lease))
    plan.run.new_mark().write_text(to_json({"process": who}))
    start_attempt(plan, shard, worker=name).close()
    began = datetime.now(UTC) - timedelta(seconds=600 * _ONE_FILE_S)
    events: list[Any] = [
        {"event": "start", "rank": 0, "world": 1, "pid": 7, "host": host, "element": f"17_{number}"},
        {"event": "loaded", "device": "H200", "seconds": 3},
        {"event": "shard", "shard": shard, "rows_resumed": 0},
        *({"event": "made", "shard": shard, "batch": 0, "first_row": 0, "images": 1} for _ in range(597)),
    ]
    lines = [
        to_json({"at": (began + timedelta(seconds=place * _ONE_FILE_S)).isoformat()} | event)
        for place, event in enumerate(events)
    ]
    plan.run.worker_log(name).write_text("\n".join(lines) + "\n")
