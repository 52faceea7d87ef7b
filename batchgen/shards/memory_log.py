"""The memory log: one record for each unit, which is also a line of the attempt's journal.

A record grows in three steps: the worker knows the `UnitRecord` when a unit is decoded, `written` adds what encoding
and writing gave, and `proven` adds what ties the record to the tar's bytes.
"""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from batchgen.shards.records import SampleRecord
from batchgen.types import Sample


class WorkerRecord(TypedDict):
    """Who made a unit: the worker's name, its host, and the kind of its device."""

    worker: str
    host: str
    device: str


class UnitRecord(WorkerRecord):
    """What a worker states of the rows that it denoised and decoded. Times in s; on the CPU device figures are None."""

    shard: int
    batch: int
    first_row: int
    started_at: str
    attempt: str
    images: int
    seconds: float
    stage_seconds: dict[str, float]
    micro_batch: int
    decode_chunk: int
    policy: dict[str, Any]
    predicted_peak_bytes: int | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    device_free_bytes: int | None
    device_used_bytes: int | None
    host_rss_bytes: int
    host_pinned_bytes: int | None
    ooms: int
    retries: int
    status: NotRequired[str]  # "failed" if any image did; `written` adds it
    failed: NotRequired[int]


class Proof(TypedDict):
    """Which bytes of the attempt's tar a record stands for. These are the keys that a resume reads."""

    tar_start: int
    tar_end: int
    sha256: str
    samples: list[SampleRecord]


class BatchRecord(UnitRecord, Proof):
    """One line of the memory log, which is also the attempt's journal."""


def written(record: UnitRecord, write_s: float, samples: Sequence[Sample]) -> UnitRecord:
    """The record with the seconds of encoding and writing, and with how many of the images failed."""
    failed = sum(sample.status != "ok" for sample in samples)
    stages = record["stage_seconds"] | {"write": round(write_s, 3)}
    return {**record, "stage_seconds": stages, "status": "failed" if failed else "ok", "failed": failed}


def proven(record: UnitRecord, proof: Proof) -> BatchRecord:
    """The record as it goes into the journal."""
    return {**record, **proof}
