"""What a run showed: its paces, from the logs that its workers left."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from batchgen.evening.pace import USUAL_END_S, USUAL_SHARD_S, Observed, Pace, Paces, observe, size_name
from batchgen.evening.work import job_of
from batchgen.events import read_events, seconds_of
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.shards.journal import read_journal
from batchgen.shards.memory_log import BatchRecord
from batchgen.types import Batch

# So many shards tell enough: the first ones of the start, and the last ones.
_MOST_SHARDS = 32


@dataclass(frozen=True, slots=True)
class _Unit:
    record: BatchRecord
    batch: Batch

    @property
    def start_s(self) -> float:
        return seconds_of(self.record["started_at"])

    @property
    def end_s(self) -> float:
        return self.start_s + self.record["seconds"] + self.record["stage_seconds"].get("write", 0.0)


def paces_of(
    plan: Plan,
    since_s: float,
    front_s: float,
    sharing: float,
    ended_s: float | None,
    shards: Collection[int] | None = None,
    whole: Collection[int] | None = None,
) -> tuple[str, Paces]:
    """The kind of the device, and the paces of the units made since `since_s`; no paces where nothing was made.

    `since_s`: when the workers were launched, in s since the epoch. `front_s`: what the command took before that.
    `sharing`: see `Pace`. `ended_s`: when all was done; None if the command was cut off. `shards`:
    those that count, and `whole`: those of them whose images have all their steps; None for all.
    Raises OSError and BatchgenError.
    """
    made = (unit for unit in _units(plan, since_s) if shards is None or unit.record["shard"] in shards)
    units = sorted(made, key=lambda unit: unit.start_s)
    if not units:
        return "", Paces()
    first = {unit.record["worker"]: unit for unit in reversed(units)}
    groups: dict[tuple[int, int, str], list[_Unit]] = defaultdict(list)
    for unit in units:
        groups[*unit.batch.size, unit.record["policy"]["placement"]].append(unit)
    strict = plan.config.determinism == "strict"
    sizes: dict[str, Pace] = {}
    for (width, height, placement), own in groups.items():
        # A worker's first unit of all is slow, since kernels are loaded; it counts only where there is no other.
        usual = [unit for unit in own if first[unit.record["worker"]] is not unit] or own
        pace = observe([_observed(unit, strict) for unit in usual], sharing)
        if pace is not None:
            sizes[size_name(width, height, placement)] = pace
    start_s = front_s + _start_s(plan, list(first.values()), since_s, sizes, strict)
    sized = [unit for unit in units if whole is None or unit.record["shard"] in whole]
    end_s = USUAL_END_S if ended_s is None else max(0.0, ended_s - max(unit.end_s for unit in units))
    paces = Paces(sizes, start_s, _shard_s(units), end_s, _bytes_of(plan, sized))
    return units[0].record["device"], paces


def _shard_s(units: Sequence[_Unit]) -> float:
    """Seconds from a shard's last image on the disk until the same worker begins with the next shard."""
    own: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        own[unit.record["worker"]].append(unit)
    gaps = [
        max(0.0, after.start_s - before.end_s)
        for made in own.values()
        for before, after in pairwise(made)
        if before.record["shard"] != after.record["shard"]
    ]
    # The median, because some shards of a large run are not looked at, and a worker may wait for others.
    return median(gaps) if gaps else USUAL_SHARD_S


def _units(plan: Plan, since_s: float) -> Iterator[_Unit]:
    run = plan.run
    written = {shard: _written_s(run, shard) for shard in run.committed() & set(range(plan.shard_count))}
    fresh = sorted((shard for shard in written if written[shard] >= since_s), key=written.__getitem__)
    some = dict.fromkeys([*fresh[: _MOST_SHARDS // 2], *fresh[-_MOST_SHARDS // 2 :]])
    paths = [run.memory_log(shard) for shard in some] + [files.journal for files in run.attempts()]
    for path in paths:
        journal = read_journal(path)
        if journal is None or not journal.records:
            continue
        shard, _ = plan.shard(int(journal.header["shard"]))
        for record in journal.records:
            if seconds_of(record["started_at"]) >= since_s and record["status"] == "ok" and not record["ooms"]:
                yield _Unit(record, shard.batches[record["batch"]])


def _written_s(run: RunDir, shard: int) -> float:
    with suppress(OSError):
        return run.manifest(shard).stat().st_mtime
    return 0.0


def _observed(unit: _Unit, strict: bool) -> Observed:
    record = unit.record
    job = replace(job_of(unit.batch), rows=record["images"])
    stages = record["stage_seconds"]
    policy = Policy(**record["policy"])
    return Observed(job, policy, stages["denoise"], record["seconds"], stages.get("write", 0.0), strict)


def _start_s(plan: Plan, first: Sequence[_Unit], since_s: float, sizes: dict[str, Pace], strict: bool) -> float:
    """Seconds from the launch until the first images are begun, and what they took longer than later ones."""
    found = []
    for unit in first:
        seen = _observed(unit, strict)
        pace = sizes[size_name(*unit.batch.size, seen.policy.placement)]
        usual_s = pace.job_s(seen.job, seen.policy, strict) * pace.sharing
        choosing_s = _choosing_s(plan, unit.record["worker"])
        found.append(unit.start_s - since_s - choosing_s + max(0.0, seen.seconds - usual_s))
    return min(found)  # of some workers not the first unit was looked at


def _choosing_s(plan: Plan, worker: str) -> float:
    """Seconds in which a worker measured memory and chose policies, before its first unit."""
    events: list[dict[str, Any]] = []
    with suppress(OSError):
        events = list(read_events(plan.run.worker_log(worker)))
    at = {event["event"]: seconds_of(event["at"]) for event in reversed(events)}
    return max(0.0, at["policy"] - at["loaded"]) if {"policy", "loaded"} <= at.keys() else 0.0


def _bytes_of(plan: Plan, units: Sequence[_Unit]) -> dict[str, tuple[float, int]]:
    """{name of size and format: (bytes of an image and its texts in the tar, how many images were measured)}."""
    totals: dict[str, tuple[int, int]] = {}
    for unit in units:
        name = bytes_name(*unit.batch.size, plan.config.output.format, plan.config.output.quality)
        size, images = totals.get(name, (0, 0))
        record = unit.record
        totals[name] = size + record["tar_end"] - record["tar_start"], images + record["images"]
    return {name: (size / images, images) for name, (size, images) in totals.items()}


def bytes_name(width: int, height: int, image_format: str, quality: int | None) -> str:
    """The name of a size and a format in `Paces.image_bytes`."""
    return f"{width}x{height} {image_format}" + (f" {quality}" if quality is not None else "")
