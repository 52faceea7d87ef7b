"""How many elements an array gets, and what of the request no cluster would run. Pure."""

import math
from dataclasses import dataclass, field

from batchgen.config.sbatch import meant_options, settled
from batchgen.config.schema import LaunchConfig
from batchgen.errors import ConfigError, UserError
from batchgen.machine.slurm import Limits, time_s
from batchgen.units import count, duration


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be submitted. `elements` is 0 where enough live. `spec`: the value of --array. `notes`: to be told."""

    elements: int
    wanted: int
    alive: int
    at_once: int | None
    notes: tuple[str, ...] = field(default=())

    @property
    def spec(self) -> str:
        """The value of --array."""
        most = f"%{self.at_once}" if self.at_once is not None and self.at_once < self.elements else ""
        return f"0-{self.elements - 1}{most}"


def request(launch: LaunchConfig, open_shards: int, alive: int, limits: Limits | None) -> Request:
    """What to submit while `alive` elements live and so many shards are open. `limits` is None where it is not known.

    Raises UserError where nothing of it would run.
    """
    workers = min(launch.workers or 1, open_shards)
    wanted = math.ceil(workers / launch.workers_per_element)
    lacks = max(0, wanted - alive)
    notes = []
    if (launch.workers or 1) > open_shards:
        they = "is" if open_shards == 1 else "are"
        notes.append(
            f"{count(open_shards, 'shard')} {they} open, so {count(workers, 'worker')} of {launch.workers} can work"
        )
    most = None if limits is None else limits.max_array
    if most is not None and lacks > most:
        if most < 2:
            raise UserError(
                f"this cluster takes no job arrays (MaxArraySize={most}): jobs/srun.sbatch starts a run there"
            )
        notes.append(
            f"this cluster takes {most} elements in an array (MaxArraySize), so {most} of {lacks} are submitted now; "
            "the same command again submits more"
        )
        lacks = most
    if limits is not None:
        _refuse_partition(launch, limits)
    return Request(lacks, wanted, alive, launch.at_once, tuple(notes))


def _refuse_partition(launch: LaunchConfig, limits: Limits) -> None:
    """Raise ConfigError for a partition that is not there, or that lets no job run for so long."""
    options = settled(launch.slurm)
    named = options.get("partition")
    wanted_s = None if (text := options.get("time")) is None else time_s(text)
    if text is not None and wanted_s is None and text.upper() not in ("UNLIMITED", "INFINITE"):
        raise ConfigError(f"launch.slurm.time={text}: write HOURS:MINUTES:SECONDS or DAYS-HOURS, such as 08:00:00")
    if wanted_s is not None and wanted_s <= launch.warn_s:
        raise ConfigError(
            f"launch.slurm.time={text} leaves no time to work, because launch.warn_s={launch.warn_s:g} seconds are "
            "kept for the end: allow more time, or set launch.warn_s to less"
        )
    if not limits.partitions:
        return
    found = [limits.partition(one) for one in (named.split(",") if named else [None])]
    known = ", ".join(one.name for one in limits.partitions)
    if named and None in found:
        missing = next(name for name, one in zip(named.split(","), found, strict=True) if one is None)
        raise ConfigError(
            f"launch.slurm.partition={named}: this cluster has no partition {missing}; choose one of {known}"
        )
    longest = [one.max_time_s for one in found if one is not None]
    if wanted_s is not None and all(most is not None and wanted_s > most for most in longest):
        most_s = max(most for most in longest if most is not None)
        where = f"partition {named}" if named else "the default partition"
        raise ConfigError(
            f"launch.slurm.time={text}: {where} runs a job for {duration(most_s)} at most (MaxTime); what an element "
            "does not finish in its time, it goes on with when it is put into the queue again"
        )


def wall_s(launch: LaunchConfig, limits: Limits | None) -> float | None:
    """How long an element may run, in s; None where there is no limit or it is not known."""
    options = settled(launch.slurm)
    if (text := options.get("time")) is not None:
        return time_s(text)
    found = None if limits is None else limits.partition(options.get("partition"))
    return None if found is None else found.default_time_s or found.max_time_s


def rounds_line(work_s: float | None, start_s: float, launch: LaunchConfig, limits: Limits | None) -> str | None:
    """How the work fits into the wall time: how many times each element has to run. None where one of them is unknown.

    `work_s`: how long all elements at once take for the work; `start_s`: until an element begins with its first image.
    """
    wall = wall_s(launch, limits)
    if work_s is None or wall is None:
        return None
    usable_s = wall - launch.warn_s - start_s
    if usable_s <= 0:
        return (
            f"an element may run for {duration(wall)}, of which {duration(launch.warn_s)} are kept for its end "
            f"(launch.warn_s) and {duration(start_s)} are taken by its start: no time is left to work"
        )
    rounds = math.ceil(work_s / usable_s)
    said = f"about {duration(work_s)} of work if all elements run at once, and an element may run for {duration(wall)}"
    how = "" if rounds == 1 else ", each of which goes on where the last one ended"
    return f"{said}: {count(rounds, 'round')}{how}"


def spelling_notes(launch: LaunchConfig) -> list[str]:
    """A line for each option that is spelt nearly like one of sbatch, and is not."""
    found = []
    for key, options in (("launch.slurm", launch.slurm), ("launch.collector", launch.collector)):
        for name in options:
            if meant := meant_options(name):
                found.append(f"{key}.{name}: did you mean {' or '.join(f'{key}.{one}' for one in meant)}?")
    return found
