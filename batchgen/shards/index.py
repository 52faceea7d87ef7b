"""index.json: every shard of a finished run, with its bytes, samples and digest."""

import json
from typing import Any

from batchgen.files import replace
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.progress import stated_of

FORMAT = 1


def shard_entry(run: RunDir, shard: int) -> dict[str, Any]:
    """The index's entry for a committed shard. Raises BrokenRunError."""
    stated = stated_of(run, shard)
    return {
        "file": run.tar(shard).relative_to(run.root).as_posix(),
        "bytes": stated.tar_bytes,
        "samples": stated.good,
        "failed": stated.failed,
        "sha256": stated.sha256,
    }


def index_of(plan: Plan) -> dict[str, Any]:
    """The index of a run whose shards are all committed. Raises BrokenRunError."""
    shards = [shard_entry(plan.run, shard) for shard in range(plan.shard_count)]
    samples = sum(entry["samples"] for entry in shards)
    return {"format": FORMAT, "run_id": plan.run_id, "samples": samples, "shards": shards}


def write_index(plan: Plan) -> None:
    """Write the index of a run whose shards are all committed. Raises BrokenRunError."""
    replace(plan.run.index, (json.dumps(index_of(plan), indent=1) + "\n").encode())


def read_index(run: RunDir) -> dict[str, Any] | None:
    """The index; None where there is none or it cannot be read."""
    try:
        index = json.loads(run.index.read_bytes())
    except (OSError, ValueError):
        return None
    try:
        sound = index["format"] == FORMAT and {"run_id", "shards"} <= index.keys()
        sound = sound and all({"file", "bytes", "samples", "sha256"} <= entry.keys() for entry in index["shards"])
    except (KeyError, TypeError, AttributeError):
        return None
    return index if sound else None


def is_current(plan: Plan) -> bool:
    """Whether the index lists all the plan's shards, which must be committed, as they are. Raises BrokenRunError."""
    return read_index(plan.run) == index_of(plan)
