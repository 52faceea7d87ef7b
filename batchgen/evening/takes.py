"""How long a run takes: start, work and end, by kept paces. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchgen.evening.pace import Pace, Paces
from batchgen.evening.work import Job, makespan_s
from batchgen.policy import Policy


@dataclass(frozen=True, slots=True)
class Takes:
    """What a run takes: seconds of the whole command, of its start, and of its work; images/s while it works."""

    seconds: float
    start_s: float
    work_s: float
    images_per_s: float


# What a run takes in which nothing is left to make, as far as it is worth telling.
NOTHING = Takes(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers: how many, and how many times as long each takes because it shares its device (1: it does not)."""

    workers: int
    sharing: float = 1.0


def takes(
    shards: Sequence[Sequence[Job]],
    known: Callable[[Job], tuple[Pace, Policy]],
    crew: Crew,
    paces: Paces,
    strict: bool = False,
) -> Takes:
    """How long the shards take. `known` gives the pace and the policy of a batch; `paces` has its start."""
    if not any(shards):
        return NOTHING
    start_s = paces.start_s or 0.0
    shards_s = [crew.sharing * _shard_s(jobs, known, strict) + paces.shard_s for jobs in shards]
    work_s = makespan_s(shards_s, crew.workers)
    images = sum(job.rows for jobs in shards for job in jobs)
    return Takes(start_s + work_s + paces.end_s, start_s, work_s, images / work_s)


def _shard_s(jobs: Sequence[Job], known: Callable[[Job], tuple[Pace, Policy]], strict: bool) -> float:
    """Seconds of a shard: while a batch is written the next one is made, so only the last one's writing counts."""
    made = [(job, *known(job)) for job in jobs]
    last, pace, _ = made[-1]
    return sum(pace.job_s(job, policy, strict) for job, pace, policy in made) + pace.write_s / pace.sharing * last.rows


def sharing(workers: int, devices: int, threads: int, cores: int) -> float:
    """How many times as long a worker takes because others use its device too.

    Workers on one GPU share it. On a CPU (no devices) they share the cores as soon as their threads are more.
    """
    if devices:
        return max(1.0, workers / devices)
    return max(1.0, workers * min(threads, cores) / cores)
