"""How far a run is: which shards are whole, which images failed, and what the workers are doing.

The run, its workers, `status` and the display all read it here. A shard is whole when its manifest is there and
belongs to this run and plan, and its tar has the size that the manifest states, or left this disk once its copy was
checked (copies.py). Nothing is hashed here: `verify` does
that.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from batchgen.errors import BrokenRunError
from batchgen.paths import RunDir
from batchgen.plan.store import Plan
from batchgen.shards.amounts import Amounts
from batchgen.shards.attempt import read_manifest, tar_problem
from batchgen.shards.crew import Crew, made_of, read_crew
from batchgen.shards.ends import overlapped
from batchgen.shards.eta import left_s, rate
from batchgen.shards.journal import read_journal
from batchgen.shards.leases import Watch
from batchgen.shards.memory_log import BatchRecord
from batchgen.shards.settled import settled_by_name
from batchgen.shards.starting import Starting, starting, starting_line
from batchgen.units import GIB, duration

_NAMED = 3  # of the broken shards, in a message
# Of how many shards the memory logs are looked at for the peak.
_RECENT_SHARDS = 8
_READ_TOGETHER = 64  # manifests that are in memory at once


@dataclass(frozen=True, slots=True)
class ShardStates:
    """The shards of a plan: whole ones, broken ones with what is wrong, and open ones, which are still to be made."""

    whole: frozenset[int]
    broken: dict[int, str]
    open: frozenset[int]

    def harm(self) -> str | None:
        """What is broken, in a few words; None where nothing is."""
        named = list(self.broken.values())[:_NAMED]
        more = f" and {len(self.broken) - len(named)} more" if len(self.broken) > len(named) else ""
        return "; ".join(named) + more if named else None

    def complaint(self, run: RunDir) -> str:
        """What is broken, and what to do, in two lines."""
        return (
            f"{run.root} is broken: {self.harm()}. Nothing is made again unless you ask for it.\n"
            f"{remedy_of_damage(run)}"
        )


def remedy_of_damage(run: RunDir) -> str:
    """What to do about committed shards that came to harm, in one line."""
    committed, settled = settled_by_name(run)
    gone = committed - settled
    moved = "If you moved the tars, put them back. If they are lost, " if gone else ""
    repair = f"python -m batchgen.repair {run.root} sets these shards aside"
    return f"{moved}{repair}, and the same command then makes them again"


@dataclass(frozen=True, slots=True)
class Stated:
    """What a manifest states about its shard: the attempt, the tar's bytes and digest, how many images are good.

    `made_by`: the id of the run, and the sha256 of the shard's plan.
    """

    made_by: tuple[str, str]
    attempt: str
    tar_bytes: int
    sha256: str
    good: int
    failed: int


def stated_of(run: RunDir, shard: int) -> Stated:
    """What the manifest of a committed shard states. Raises BrokenRunError, or FileNotFoundError."""
    facts = run.manifest(shard).stat()
    return _read(run, shard, facts.st_ino, facts.st_mtime_ns)


@cache
def _read(run: RunDir, shard: int, inode: int, written_ns: int) -> Stated:
    # A committed manifest never changes, so a process reads each one once, and again only if the file was replaced.
    manifest = read_manifest(run, shard)
    try:
        samples = manifest["samples"]
        good = sum(sample["status"] == "ok" for sample in samples)
        made_by = (manifest["run_id"], manifest["plan_sha256"])
        return Stated(made_by, manifest["attempt"], manifest["bytes"], manifest["sha256"], good, len(samples) - good)
    except (KeyError, TypeError) as error:
        raise BrokenRunError(f"{run.manifest(shard)} was not written by batchgen") from error


def shard_states(plan: Plan) -> ShardStates:
    """The state of every planned shard, by manifests and the sizes of tars. Changes nothing; raises OSError."""
    planned = frozenset(range(plan.shard_count))
    committed = planned & plan.run.committed()
    problems = {shard: problem_of(plan, shard) for shard in sorted(committed)}
    broken = {shard: problem for shard, problem in problems.items() if problem is not None}
    return ShardStates(committed - broken.keys(), broken, planned - committed)


def finished_by_name(plan: Plan) -> frozenset[int]:
    """The shards that have a manifest, and a tar or a copy: quick enough to be asked twice a second of a large run."""
    return frozenset(range(plan.shard_count)) & settled_by_name(plan.run)[1]


def problem_of(plan: Plan, shard: int) -> str | None:
    """What is wrong with a committed shard, by its manifest and the size of its tar; None where nothing is."""
    run = plan.run
    try:
        stated = stated_of(run, shard)
    except (BrokenRunError, FileNotFoundError):  # under another spelling of its number, say
        return f"shard {shard:06d}'s manifest is damaged"
    if stated.made_by != (plan.run_id, plan.digest(shard)):
        return f"shard {shard:06d}'s manifest belongs to another run or plan"
    problem = tar_problem(run, shard, stated.attempt, stated.tar_bytes)
    return None if problem is not None and _waits(run, shard, stated) else problem


def _waits(run: RunDir, shard: int, stated: Stated) -> bool:
    """Whether a commit was cut off and its tar waits in work/ to be published."""
    try:
        return run.attempt(shard, stated.attempt).tar.stat().st_size == stated.tar_bytes
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Images count when they are on the disk, or when a live worker has denoised them.

    `workers`: how many hold a live lease. `images_per_s` and `eta_s`, the seconds until all is made, are by what all
    workers did of late (eta.py); None while that is not known. `peak_bytes` is the peak of recent units: memory
    allocated on the device, or resident on the host without one. `starting`: the workers that have not begun with an
    image.
    """

    images: int
    planned_images: int
    shards: int
    planned_shards: int
    workers: int
    images_per_s: float | None
    peak_bytes: int | None
    eta_s: float | None = None
    starting: tuple[Starting, ...] = ()


def read_progress(plan: Plan, watch: Watch | None = None) -> Progress:
    """The progress now. It may be read while workers work, and reads only what workers, and recent shards, wrote last.

    A caller that looks more than once passes the same `watch` each time, so that a worker that hangs is noticed.
    Raises OSError and BatchgenError.
    """
    watch = watch or Watch(plan.config.launch.lease_timeout_s)
    return progress_of(plan, read_crew(plan.run, watch), finished_by_name(plan))


def progress_of(plan: Plan, crew: Crew, finished: frozenset[int]) -> Progress:
    """The progress, where its crew and the finished shards are known. Raises OSError and BatchgenError."""
    sizes = plan.sizes
    open_shards = frozenset(range(len(sizes))) - finished
    rows = {shard: made for shard, made in crew.rows.items() if shard in open_shards}
    rows |= _rows_left_behind(plan.run, open_shards - rows.keys())
    rows = {shard: min(made, sizes[shard].images) for shard, made in rows.items()}
    at_work = [one for one in crew.told if one.worker in crew.at_work]
    amounts = Amounts(
        plan, open_shards | {unit.shard for one in at_work for unit in one.units if unit.shard < len(sizes)}
    )
    work_per_s = rate(made_of(at_work, amounts.of), crew.at_work, crew.now_s)
    return Progress(
        images=sum(sizes[shard].images for shard in finished) + sum(rows.values()),
        planned_images=sum(size.images for size in sizes),
        shards=len(finished),
        planned_shards=len(sizes),
        workers=len(crew.at_work),
        images_per_s=rate(made_of(at_work, lambda unit: unit.images), crew.at_work, crew.now_s),
        peak_bytes=_peak_bytes(plan.run, finished, rows.keys()),
        eta_s=None if work_per_s is None else left_s(amounts.left(open_shards, rows), work_per_s, len(crew.at_work)),
        starting=tuple(starting(crew)),
    )


def _rows_left_behind(run: RunDir, shards: Collection[int]) -> dict[int, int]:
    """How many rows unfinished attempts hold of those shards that nobody works on."""
    left = [files for files in run.attempts() if files.shard in shards]
    rows: dict[int, int] = {}
    for files, journal in zip(left, overlapped(lambda one: read_journal(one.journal), left), strict=True):
        if journal is not None:
            rows[files.shard] = max(journal.rows, rows.get(files.shard, 0))
    return rows


def _peak_bytes(run: RunDir, finished: Collection[int], under_way: Collection[int]) -> int | None:
    """The highest peak of the units of some shards: the last finished ones, or those under way while none is."""
    paths = [run.memory_log(shard) for shard in sorted(finished)[-_RECENT_SHARDS:]]
    if not paths:
        paths = [files.journal for files in run.attempts() if files.shard in under_way][:_RECENT_SHARDS]
    journals = overlapped(read_journal, paths)
    peaks = [_peak(record) for journal in journals if journal is not None for record in journal.records]
    return max(peaks, default=None)


def _peak(record: BatchRecord) -> int:
    on_device = record["peak_allocated_bytes"]
    return int(record["host_rss_bytes"] if on_device is None else on_device)


def failed_samples(plan: Plan, shards: Collection[int] | None = None) -> dict[str, str]:
    """Key and reason of each image that failed in the newest committed shard that planned it.

    `shards`: those to look at; None looks at all.
    """
    failed: dict[str, str] = {}
    wanted = sorted(plan.run.committed() if shards is None else shards)
    for first in range(0, len(wanted), _READ_TOGETHER):
        some = wanted[first : first + _READ_TOGETHER]
        for manifest in overlapped(lambda shard: read_manifest(plan.run, shard), some):
            for sample in manifest["samples"]:
                if sample["status"] == "ok":
                    failed.pop(sample["key"], None)
                else:
                    failed[sample["key"]] = str(sample["reason"])
    return failed


def progress_line(progress: Progress) -> str:
    """One line: images, shards, rate, time left, who is still starting, peak memory."""
    parts = [
        f"{progress.images}/{progress.planned_images} images",
        f"{progress.shards}/{progress.planned_shards} shards",
        *rate_facts(progress),
    ]
    if progress.peak_bytes is not None:
        parts.append(f"peak memory {progress.peak_bytes / GIB:.2f} GiB")
    return ", ".join(parts)


def rate_facts(progress: Progress) -> list[str]:
    """The rate and the time left, as far as they are known, and who is still starting, each in a few words."""
    parts = []
    if progress.images_per_s and progress.images < progress.planned_images and progress.workers:
        parts.append(f"{progress.images_per_s:.2f} images/s")
        parts += [f"ETA {duration(progress.eta_s)}, {_at(progress.eta_s)}"] if progress.eta_s is not None else []
    if (said := starting_line(list(progress.starting), time.time())) is not None:
        parts.append(said)
    return parts


def _at(seconds: float) -> str:
    """What the clock will show in so many seconds: at 06:40, or at 06:40 on Saturday where that is not today."""
    now = datetime.now()
    end = now + timedelta(seconds=seconds)
    return f"at {end:%H:%M}" if end.date() == now.date() else f"at {end:%H:%M} on {end:%A}"
