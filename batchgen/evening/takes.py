"""How long a run takes: start, work and end, by kept paces. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchgen.evening.pace import Pace
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
    start_s: float,
    end_s: float,
    strict: bool = False,
) -> Takes:
    """How long the shards take. `known` gives the pace and the policy of a batch."""
    if not any(shards):
        return NOTHING
    shards_s = []
    for jobs in shards:
        paces = [(job, *known(job)) for job in jobs]
        shards_s.append(crew.sharing * sum(pace.job_s(job, policy, strict) for job, pace, policy in paces))
    last = shards[-1][-1]
    # The images of the last batch are still to be written when they are decoded.
    writing_s = known(last)[0].write_s * last.rows
    work_s = makespan_s(shards_s, crew.workers) + writing_s
    images = sum(job.rows for jobs in shards for job in jobs)
    return Takes(start_s + work_s + end_s, start_s, work_s, images / work_s)


def sharing(workers: int, devices: int, threads: int, cores: int) -> float:
    """How many times as long a worker takes because others use its device too.

    Workers on one GPU share it. On a CPU (no devices) they share the cores as soon as their threads are more.
    """
    if devices:
        return max(1.0, workers / devices)
    return max(1.0, workers * min(threads, cores) / cores)
