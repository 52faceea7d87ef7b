"""Roughly how long a bench takes, by the size of the model and by how fast the device multiplies matrices."""

from math import prod

from batchgen.bench.job import Job
from batchgen.bench.rows import BATCHES, Row
from batchgen.models.find import place_px
from batchgen.models.parts import settings, tensors

# Of the products that its weights would have at each place, the share that a UNet has, which works at several sizes
# (SD 1.5: 0.11, SDXL: 0.08, counted from the layers' shapes).
_UNET_SHARE = 0.1
_DECODE_PASSES = 3
# Of the speed of large products: what denoising reaches.
_SHARE = 0.35
_STEP_S = {True: 0.03, False: 0.01}  # the least that a step takes: what Python needs for it; of a GPU, of a CPU
_CALLS = 4  # of one image
# To import and load; to compile; and batchgen's front door and probe.
_START_S, _COMPILE_S, _FRONT_S = 8.0, 90.0, 10.0
_LOADED_BYTES_PER_S = 1e9


def image_flop(job: Job) -> float:
    """Roughly the floating point operations of an image."""
    parts = {part.name: part for part in job.model.parts()}
    weights = sum(prod(shape) for path in parts[job.family.denoiser].weights for shape in tensors(path).values())
    edge_px = place_px(settings(parts["vae"])) * job.family.patch
    places = job.task.width * job.task.height / edge_px**2
    share = _UNET_SHARE if job.family.convolutional else 1.0
    passes = job.task.steps * (2 if job.guided else 1) + _DECODE_PASSES
    return 2.0 * weights * places * share * passes


def row_s(job: Job, row: Row, flop_per_s: float) -> float:
    """Roughly the seconds of a row."""
    task = job.task
    start_s = _START_S + sum(path.stat().st_size for part in job.model.parts() for path in part.weights) / (
        _LOADED_BYTES_PER_S
    )
    image_s = image_flop(job) / (_SHARE * flop_per_s)
    if row.group != BATCHES:
        slower = 8 if row.name == "original" and job.place.is_gpu else 1
        return start_s + _CALLS * max(slower * image_s, task.steps * _STEP_S[job.place.is_gpu])
    start_s += {"compiled": _COMPILE_S, "own": _FRONT_S}.get(row.maker, 0.0)
    return start_s + (task.batches + 1) * max(task.rows * image_s, task.steps * _STEP_S[job.place.is_gpu])
