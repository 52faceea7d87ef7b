"""What a probe costs beside the job that it is for: whether to measure a size, and for how long. Pure, no torch."""

import math
from itertools import takewhile

from batchgen.memory.costs import Task
from batchgen.memory.figures import Figures, at, call_s
from batchgen.policy import PADDED_SIZES

# A probe may take this share of the time that the job's images take.
SHARE = 0.05
# Seconds that a probe takes on a card of whatever speed: kernels are loaded, calls wait for the host.
START_S = 8.0
# Passes that each number of rows is measured by, and decodes of each piece.
STEPS = 3
_DECODES = 2
# A neighbour's figures are good for a size of between a quarter and four times its pixels.
_NEAR = 4.0


def image_s(figures: Figures, task: Task) -> float:
    """Seconds of an image, at the best rate that the figures have."""
    row_s = min(seconds / rows for rows, seconds in figures.pass_s)
    return task.steps * (2 if task.guided else 1) * row_s + call_s(figures.decode_s, task.pixels, 1)


def probe_s(figures: Figures, task: Task) -> float:
    """Seconds that a probe takes at most, by figures that are known or guessed before."""
    each = 2 if task.guided else 1
    wanted = takewhile(lambda size: size < 2 * task.rows, PADDED_SIZES)
    passes_s = sum(at(figures.pass_s, each * size) for size in wanted)
    pieces = 1 + len(task.tiles_px)
    return START_S + STEPS * passes_s + _DECODES * pieces * call_s(figures.decode_s, task.pixels, 1)


def images_for_a_probe(figures: Figures, task: Task) -> int:
    """From how many images on a job is worth a probe."""
    return math.ceil(probe_s(figures, task) / (SHARE * image_s(figures, task)))


def nearest(sizes: list[tuple[int, int]], task: Task) -> tuple[int, int] | None:
    """Of sizes that were measured, the one whose figures say most of the task's; None where all are far."""

    def distance(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] * size[1] / task.pixels))

    near = [size for size in sizes if distance(size) <= math.log(_NEAR)]
    return min(near, key=lambda size: (distance(size), size), default=None)
