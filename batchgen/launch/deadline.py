"""When the workers of a command, of an element of a job array, or a worker on its own are to end, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from batchgen.config.schema import LaunchConfig
from batchgen.units import duration, duration_s, moment_s

END_TIME = "SLURM_JOB_END_TIME"  # s since the epoch, in the environment of a job


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the workers are asked to end, in s since the epoch, and why.

    `is_limit`: a limit of time ran out, so a new job may go on at once.
    """

    at_s: float
    why: str
    is_limit: bool


def deadline(launch: LaunchConfig, environ: Mapping[str, str], started_s: float) -> Deadline | None:
    """The first deadline of what began at `started_s` (s since the epoch); None where there is none.

    Raises ConfigError where `launch` holds a time that is none.
    """
    found = []
    if launch.stop_at is not None:
        at_s = moment_s("launch.stop_at", launch.stop_at, started_s)
        found.append(Deadline(at_s, f"launch.stop_at={launch.stop_at} has come", False))
    if launch.time_limit is not None:
        limit_s = duration_s("launch.time_limit", launch.time_limit)
        why = f"launch.time_limit={launch.time_limit} is over in {duration(min(launch.warn_s, limit_s))}"
        found.append(Deadline(started_s + max(0.0, limit_s - launch.warn_s), why, True))
    if (end := environ.get(END_TIME, "")).isdecimal():
        why = f"SLURM ends this job at {datetime.fromtimestamp(int(end)):%H:%M:%S}"
        found.append(Deadline(int(end) - launch.warn_s, why, True))
    return min(found, key=lambda one: one.at_s, default=None)


def settled(launch: LaunchConfig, now_s: float) -> str | None:
    """`launch.stop_at` with its date: one moment for all workers, wherever and whenever they begin.

    Raises ConfigError.
    """
    if launch.stop_at is None:
        return None
    at_s = moment_s("launch.stop_at", launch.stop_at, now_s)
    return datetime.fromtimestamp(at_s).astimezone().isoformat(timespec="seconds")
