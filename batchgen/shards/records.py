"""The records that shards leave on disk beside the memory log: what each key means."""

from typing import Any, NotRequired, TypedDict

from batchgen.files import sha256_bytes
from batchgen.types import Sample


class SampleRecord(TypedDict):
    """What became of a planned key."""

    key: str
    status: str  # "ok", "failed" or "filtered"
    sha256: NotRequired[dict[str, str]]  # of each file in the tar, by extension; only if ok
    reason: NotRequired[str | None]  # only if not ok


class Header(TypedDict):
    """The first line of an attempt's journal: which run, plan and shard it is for, and who makes it."""

    format: int
    run_id: str
    shard: int
    plan_sha256: str
    computes: int
    attempt: str
    worker: str
    process: dict[str, Any]


class Manifest(Header):
    """shards/000007.json: the attempt that became the shard, its tar, and every planned key."""

    bytes: int
    sha256: str
    samples: list[SampleRecord]


class LeaseContent(TypedDict):
    """leases/000007: who holds the shard, and how far the holder is."""

    worker: str
    process: dict[str, Any]
    token: str
    rows: int
    step_s: float | None
    beat: int


def sample_record(sample: Sample) -> SampleRecord:
    """What the journal and the manifest say of a sample."""
    if sample.status == "ok":
        digests = {name: sha256_bytes(data) for name, data in sorted(sample.files.items())}
        return {"key": sample.key, "status": sample.status, "sha256": digests}
    return {"key": sample.key, "status": sample.status, "reason": sample.reason}
