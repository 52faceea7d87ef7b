"""How far a run is, at any time, from any terminal: read from the run directory, which is the truth.

python -m batchgen.status RUN_DIR
"""

import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchgen.console import run_dir_command
from batchgen.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_WHOLE, EXIT_WHOLE_WITH_FAILURES
from batchgen.paths import RunDir
from batchgen.plan.rejects import rejected_line
from batchgen.plan.store import Plan, load_plan
from batchgen.shards.attempt import read_manifest
from batchgen.shards.journal import Journal, read_journal
from batchgen.shards.leases import Watch, live_leases, read_lease
from batchgen.shards.stock import Stock, glance, take_stock
from batchgen.units import GIB

# The memory logs looked at for the rate and the peak: those of open shards, and of so many committed ones, which may
# hold one unit each.
_RECENT_SHARDS = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Images count when they are on the disk, or denoised by a worker that is at it.

    `peak_bytes` is the device's (allocated) where there is one, else the host's (resident); of recent units.
    """

    images: int
    planned_images: int
    shards: int
    planned_shards: int
    workers: int
    images_per_s: float | None
    peak_bytes: int | None


def read_progress(plan: Plan, watch: Watch | None = None) -> Progress:
    """The progress now. Works beside workers; reads only what is open or recent, however large the run.

    Who looks more than once gives the same `watch` each time: a worker that hangs is then seen to be silent.
    Raises OSError and BatchgenError.
    """
    run = plan.run
    sizes = plan.sizes
    committed = glance(plan)
    watch = watch or Watch(plan.config.launch.lease_timeout_s)
    leases = {int(path.name): read_lease(content) for path, content in live_leases(run, watch).items()}
    open_rows = {shard: lease.rows for shard, lease in leases.items()}
    journals = [read_journal(run.memory_log(shard)) for shard in sorted(committed)[-_RECENT_SHARDS:]]
    for files in run.attempts():
        journal = read_journal(files.journal)
        journals.append(journal)
        if journal is not None:
            open_rows[files.shard] = max(journal.rows, open_rows.get(files.shard, 0))
    open_images = sum(rows for shard, rows in open_rows.items() if shard not in committed)
    records = _records(journals)
    return Progress(
        images=sum(sizes[shard][1] for shard in committed) + open_images,
        planned_images=sum(images for _, images in sizes),
        shards=len(committed),
        planned_shards=len(sizes),
        workers=len({lease.worker for lease in leases.values()}),
        images_per_s=_rate(records) * max(1, len(leases)) if records else None,
        peak_bytes=max((_peak_bytes(record) for record in records), default=None),
    )


def _records(journals: list[Journal | None]) -> list[dict[str, Any]]:
    records = [record for journal in journals if journal is not None for record in journal.records]
    return sorted(records, key=lambda record: str(record["started_at"]))


def _rate(records: list[dict[str, Any]]) -> float:
    """Images a second of one worker, by the seconds of its recent units."""
    recent = records[-8:]
    seconds = sum(float(record["seconds"]) for record in recent)
    return sum(int(record["images"]) for record in recent) / max(1e-9, seconds)


def _peak_bytes(record: dict[str, Any]) -> int:
    on_device = record["peak_allocated_bytes"]
    return int(record["host_rss_bytes"] if on_device is None else on_device)


def failed_samples(plan: Plan) -> dict[str, str]:
    """Key and reason of each image that failed in the newest committed shard that planned it."""
    failed: dict[str, str] = {}
    for shard in sorted(plan.run.committed()):
        for sample in read_manifest(plan.run, shard)["samples"]:
            if sample["status"] == "ok":
                failed.pop(sample["key"], None)
            else:
                failed[sample["key"]] = sample["reason"]
    return failed


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45s, 3m05s, 2h10m."""
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest_s:02d}s" if minutes else f"{rest_s}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def progress_line(progress: Progress) -> str:
    """One line: images, shards, rate, time left, peak memory."""
    parts = [
        f"{progress.images}/{progress.planned_images} images",
        f"{progress.shards}/{progress.planned_shards} shards",
    ]
    left = progress.planned_images - progress.images
    if progress.images_per_s and left and progress.workers:
        parts += [f"{progress.images_per_s:.2f} images/s", f"ETA {duration(left / progress.images_per_s)}"]
    if progress.peak_bytes is not None:
        parts.append(f"peak memory {progress.peak_bytes / GIB:.2f} GiB")
    return ", ".join(parts)


def show(run: RunDir) -> int:
    """Print the status of a run; return 0 only for one that is whole. Raises BatchgenError."""
    plan = load_plan(run)
    progress, stock = read_progress(plan), take_stock(plan)
    print(f"{run.root}: {_state(stock, progress.workers)}")
    print(progress_line(progress))
    if stock.broken:
        print(stock.complaint(run))
    else:
        failed = failed_samples(plan)
        print(f"{len(failed)} failed images, {sum(segment.rejects for segment in plan.segments)} rejected rows")
        for key, reason in list(failed.items())[:10]:
            print(f"  {key}: {reason}")
        if (left := progress.planned_shards - progress.shards) > 0:
            print(f"{left} shards are left: up to {left} workers can be busy at once")
    if (rejected := rejected_line(plan)) is not None:
        print(rejected)
    print(f"as of {datetime.now().isoformat(sep=' ', timespec='seconds')}")
    if stock.broken or stock.open:
        return EXIT_BROKEN if stock.broken else EXIT_INTERRUPTED
    return EXIT_WHOLE_WITH_FAILURES if failed else EXIT_WHOLE


def _state(stock: Stock, workers: int) -> str:
    if stock.broken:
        more = f" (and {len(stock.broken) - 1} more)" if len(stock.broken) > 1 else ""
        return f"broken: {next(iter(stock.broken.values()))}{more}"
    if not stock.open:
        return "done"
    return f"{workers} workers at it" if workers else "not running"


if __name__ == "__main__":
    sys.exit(run_dir_command("status", "Show how far a run is.", show))
