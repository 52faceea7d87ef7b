"""How fast a model works on a machine: measured figures of runs, and what follows from them. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from batchgen.evening.work import Job
from batchgen.memory.costs import Task, batch_s
from batchgen.memory.figures import Figures, Points, at
from batchgen.padding import PADDED_SIZES
from batchgen.policy import Policy

# Figures of a size with a quarter to four times the pixels serve, in proportion, where a size was not measured.
_NEAR = 4.0
# What a shard and the end of a command take where that was not measured.
USUAL_SHARD_S, USUAL_END_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of the work on images of one size under one placement.

    `pass_s`: (rows at once, seconds) of one pass of the denoiser with all that belongs to a step. `rest_s`: of an
    image beside its steps. `write_s`: of an image, until it is on the disk after it was decoded. `sharing`: how many
    workers had to share what one worker could use, while this was measured.
    """

    pass_s: Points
    rest_s: float
    write_s: float = 0.0
    sharing: float = 1.0

    def job_s(self, job: Job, policy: Policy, strict: bool = False) -> float:
        """Seconds of a batch while no other worker shares the device."""
        calls = job.calls(policy.micro_batch, policy.guidance_split, strict)
        passes_s = sum(passes * at(self.pass_s, rows) for rows, passes in calls)
        return (passes_s + job.rows * self.rest_s) / self.sharing

    def slowed(self, ratio: float) -> "Pace":
        """The pace of work that takes this many times as long."""
        passes = tuple((rows, seconds * ratio) for rows, seconds in self.pass_s)
        return replace(self, pass_s=passes, rest_s=self.rest_s * ratio, write_s=self.write_s * ratio)


@dataclass(frozen=True, slots=True)
class Paces:
    """All that is kept of one model on one kind of device.

    `sizes`: {name of size and placement: its pace}. `start_s`: from the command until the first image is begun,
    without a probe of memory. `shard_s`: between two shards, beside the writing of the first one's last images.
    `end_s`: from the last image on the disk until the command has ended.
    `image_bytes`: {name of size and format: (bytes in the tar, images)}.
    """

    sizes: Mapping[str, Pace] = field(default_factory=dict)
    start_s: float | None = None
    shard_s: float = USUAL_SHARD_S
    end_s: float = USUAL_END_S
    image_bytes: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def has(self, width: int, height: int, placement: str) -> bool:
        """Whether the pace of this very size is known."""
        return size_name(width, height, placement) in self.sizes

    def of(self, width: int, height: int, placement: str) -> Pace | None:
        """The pace of a size, or the one of the nearest size in proportion; None if none is near."""
        if (known := self.sizes.get(size_name(width, height, placement))) is not None:
            return known
        near = {one: pace for name, pace in self.sizes.items() if (one := _pixels(name, placement)) is not None}
        pixels = width * height
        best = min(near, key=lambda one: abs(math.log(one / pixels)), default=None)
        if best is None or abs(math.log(best / pixels)) > math.log(_NEAR):
            return None
        return near[best].slowed(pixels / best)

    def with_more(self, new: "Paces") -> "Paces":
        """These figures with newer ones in their place, as far as there are newer ones."""
        return Paces(
            {**self.sizes, **new.sizes},
            self.start_s if new.start_s is None else new.start_s,
            new.shard_s,
            new.end_s,
            {**self.image_bytes, **new.image_bytes},
        )


def size_name(width: int, height: int, placement: str) -> str:
    """The name of a size and a placement in `Paces.sizes`."""
    return f"{width}x{height} {placement}"


def _pixels(name: str, placement: str) -> int | None:
    size, _, held = name.partition(" ")
    return math.prod(map(int, size.split("x"))) if held == placement else None


def pace_of(figures: Figures, policy: Policy, task: Task) -> Pace:
    """The pace by the figures that a policy is chosen by, as the choice reckons (`costs.batch_s`)."""

    def seconds(rows: int, steps: int) -> float:
        return batch_s(figures, policy, Task(task.width, task.height, rows, steps, guided=False))

    sizes = [size for size in PADDED_SIZES if size <= policy.micro_batch] or [1]
    sizes += [2 * policy.micro_batch] if task.guided and not policy.guidance_split else []
    policy = replace(policy, micro_batch=max(sizes), guidance_split=False)
    rows = task.rows
    return Pace(tuple((float(one), seconds(one, 1) - seconds(one, 0)) for one in sizes), seconds(rows, 0) / rows)


@dataclass(frozen=True, slots=True)
class Observed:
    """A unit as it was made: a part of `job` with so many images, and its seconds."""

    job: Job
    policy: Policy
    denoise_s: float
    seconds: float
    write_s: float
    strict: bool = False


def observe(units: Iterable[Observed], sharing: float) -> Pace | None:
    """The pace that these units of one size were made at; None without any."""
    passes: dict[int, tuple[float, float]] = {}
    images, rest_s, write_s = 0, 0.0, 0.0
    for unit in units:
        calls = list(unit.job.calls(unit.policy.micro_batch, unit.policy.guidance_split, unit.strict))
        total = sum(rows * count for rows, count in calls)
        for rows, count in calls:
            taken_s, counted = passes.get(rows, (0.0, 0.0))
            passes[rows] = (taken_s + unit.denoise_s * rows * count / total, counted + count)
        images += unit.job.rows
        rest_s += max(0.0, unit.seconds - unit.denoise_s)
        write_s += unit.write_s
    if not images:
        return None
    points = tuple((float(rows), taken_s / count) for rows, (taken_s, count) in sorted(passes.items()))
    return Pace(points, rest_s / images, write_s / images, sharing)
