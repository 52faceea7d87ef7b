"""What a probe costs beside its job: whether to measure a size, and for how long. Pure, without torch."""

import math
from itertools import takewhile

from batchgen.memory.costs import Task
from batchgen.memory.figures import Figures, at, call_s
from batchgen.padding import PADDED_SIZES

# A probe may take this share of the time of the job's images.
SHARE = 0.05
# A probe takes these seconds on any card, however fast, because kernels are loaded and calls wait for the host.
START_S = 8.0
# How many passes measure each number of rows, and how many decodes each piece.
STEPS = 3
_DECODES = 2
# The figures of a size serve for sizes with a quarter to four times its pixels.
_NEAR = 4.0


def image_s(figures: Figures, task: Task) -> float:
    """Seconds for an image, at the best rate in the figures."""
    row_s = min(seconds / rows for rows, seconds in figures.pass_s)
    return task.steps * (2 if task.guided else 1) * row_s + call_s(figures.decode_s, task.pixels, 1)


def probe_s(figures: Figures, task: Task) -> float:
    """Seconds that a probe takes at most, by figures that are known or estimated before."""
    each = 2 if task.guided else 1
    wanted = takewhile(lambda size: size < 2 * task.rows, PADDED_SIZES)
    passes_s = sum(at(figures.pass_s, each * size) for size in wanted)
    pieces = 1 + len(task.tiles_px)
    return START_S + STEPS * passes_s + _DECODES * pieces * call_s(figures.decode_s, task.pixels, 1)


def images_for_a_probe(figures: Figures, task: Task) -> int:
    """With how many images a job becomes worth a probe."""
    return math.ceil(probe_s(figures, task) / (SHARE * image_s(figures, task)))


def nearest(sizes: list[tuple[int, int]], task: Task) -> tuple[int, int] | None:
    """The measured size whose figures tell most about the task; None if no size is near."""

    def distance(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] * size[1] / task.pixels))

    near = [size for size in sizes if distance(size) <= math.log(_NEAR)]
    return min(near, key=lambda size: (distance(size), size), default=None)
