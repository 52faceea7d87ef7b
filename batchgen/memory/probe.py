"""A short probe: the model runs a few steps and decodes on the device that will do the work, and is measured.

This module does not use torch: the engine runs, and the gauge measures.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from batchgen.engine import Engine, Gauge
from batchgen.errors import MemoryNeededError
from batchgen.machine.meters import Stopwatch
from batchgen.memory.costs import Task, peak_bytes
from batchgen.memory.figures import Figures, Pieces, Points, at
from batchgen.memory.placement_bytes import held_bytes
from batchgen.memory.worth import SHARE, STEPS, image_s
from batchgen.padding import PADDED_SIZES
from batchgen.policy import Policy
from batchgen.types import Prompt
from batchgen.units import GIB

# The placements that a probe may run under. The first one tells most; the last one is for jobs that hardly fit.
PROBED_UNDER = ("resident", "model_offload", "weight_streaming", "sequential_offload")
# The placement that leaves most room for rows, apart from the last one
_ROOMIEST = "weight_streaming"
_MORE_IN_PLACE = PROBED_UNDER[: PROBED_UNDER.index(_ROOMIEST)]
_TEXT = "a photo of an astronaut riding a horse on mars"
# A device that decodes this many pixels at once is busy enough.
_BUSY_PIXELS = 8 << 20
# A shorter call is measured twice, because the host may have been busy or the kernels not loaded yet.
_SHORT_S = 1.0
# More at once does not pay if it gains less than this share.
_GAIN = 0.02
_USED_SHARE = 0.9  # of the free memory, because the figures are not known yet
_Taken = dict[float, float]  # how much at once -> seconds or bytes


def probed_placement(estimate: Figures, task: Task, base: Policy, free_bytes: int) -> str:
    """Which placement to probe under: the one with most weights on the device that leaves room for a row or two."""
    for placement in _MORE_IN_PLACE:
        if peak_bytes(estimate, _least(base, placement), task) <= _USED_SHARE * free_bytes:
            return placement
    return _ROOMIEST


def _least(base: Policy, placement: str) -> Policy:
    return replace(base, placement=placement, micro_batch=1, decode_chunk=1, guidance_split=True, tile_px=256)


def probe(
    engine: Engine,
    gauge: Gauge,
    estimate: Figures,
    task: Task,
    base: Policy,
    placement: str,
    images: int,
    may_stream: bool = True,
) -> Figures:
    """The figures of this size, measured for a job with this many images of the size.

    It takes seconds on a fast card, half a minute on a slow one, and only the share of the job's time that worth.py
    allows. If memory ends the series of micro-batches under `placement`, the series goes on under weight streaming,
    which leaves more room, because the choice is whether more rows at once are worth copying the weights. For that the
    host must hold all weights; `may_stream` is whether it can.

    A series of growing batches ends when the next one is predicted not to fit, or at an out-of-memory error.
    Raises MemoryNeededError if not even the smallest call fits.
    """
    return _Probe(engine, gauge, estimate, task, replace(base, placement=placement), images, may_stream).figures()


def prompts_of(task: Task, count: int, steps: int) -> list[Prompt]:
    """Prompts to measure with: so many images as the task has them, in so many steps."""
    scale = 7.5 if task.guided else 0.0
    return [
        Prompt(str(place), _TEXT, "", place, task.width, task.height, steps, scale, "probe", 1, guided_above=0.0)
        for place in range(count)
    ]


class _Probe:
    def __init__(
        self, engine: Engine, gauge: Gauge, estimate: Figures, task: Task, base: Policy, images: int, may_stream: bool
    ) -> None:
        self._engine, self._gauge, self._estimate, self._task, self._base = engine, gauge, estimate, task, base
        self._images, self._may_stream = images, may_stream and not base.traced
        self._base_bytes = 0
        self._spent_s = 0.0
        # What ended a series although more at once still gained: memory, the rows of a batch, or the job's images
        self._cut = self._short_of_rows = self._short_of_images = False

    def figures(self) -> Figures:
        if self._try(self._engine.prepare, self._base) is None:
            raise self._too_little("load")
        encode_bytes, texts = self._encode()
        pass_bytes, pass_s, latent = self._denoise(texts)
        decode_bytes, decode_s = self._decode(latent)
        self._engine.collect()  # other processes may need the memory of the largest calls
        return replace(
            self._estimate,
            encode_bytes=encode_bytes,
            pass_bytes=_points(pass_bytes),
            pass_s=_points(pass_s),
            decode_bytes=_points(decode_bytes),
            decode_s=decode_s,
            copied_bytes_per_s=self._gauge.copied_bytes_per_s(),
            measured=True,
            cut_at_bytes=self._gauge.free_bytes() if self._cut else None,
            short_rows=self._task.rows if self._short_of_rows else None,
            short_images=self._images if self._short_of_images else None,
        )

    def _encode(self) -> tuple[int, Any]:
        before = self._gauge.begin()
        texts = self._try(self._engine.encode, self._prompts(1))
        if texts is None:
            raise self._too_little("encode")
        # What it takes beside its weights, which are already in place or come in now
        held = held_bytes(self._estimate.weights, self._base.placement)[0]
        return max(self._gauge.peak_bytes() - max(before, held), self._estimate.encode_bytes), texts

    def _denoise(self, texts: Any) -> tuple[_Taken, _Taken, Any]:
        pass_bytes, pass_s = _Taken(), _Taken()
        latent = self._grow(texts, pass_bytes, pass_s)
        if latent is None:
            raise self._too_little("denoise")
        if self._cut and self._base.placement in _MORE_IN_PLACE and self._may_stream:
            self._base = replace(self._base, placement=_ROOMIEST)
            self._grow(texts, pass_bytes, pass_s)
        return pass_bytes, pass_s, latent

    def _grow(self, texts: Any, pass_bytes: _Taken, pass_s: _Taken) -> Any:
        # Run more and more rows, apart from those that are known, until more do not fit or gain; a latent of the last
        latent, series = None, _Taken()
        for policy, rows in self._micro_batches():
            if rows in pass_s:
                continue
            prompts = self._prompts(policy.micro_batch)
            self._engine.prepare(policy)
            self._base_bytes = self._gauge.begin()
            if pass_bytes and not self._fits(at(_points(pass_bytes), rows)):
                self._cut = True
                break
            if pass_s and not self._is_worth(pass_s, rows):
                self._short_of_images = True
                break
            if not series:  # brings the weights in and loads kernels; twice, since streaming learns an order first
                short = self._prompts(policy.micro_batch, steps=1)
                self._try(self._engine.denoise, texts, short, policy)
                self._try(self._engine.denoise, texts, short, policy)
            with self._engine.passes() as watches:
                made = self._try(self._engine.denoise, texts, prompts, policy)
            if made is None:
                break
            latent = made[0]
            self._spent_s += sum(watch.seconds() for watch in watches)
            pass_bytes[rows] = self._taken_bytes()
            in_one = policy.guidance_split and len(watches) <= STEPS  # the two passes are timed as one
            seconds = min(watch.seconds() for watch in watches) / (2 if in_one else 1)
            saturated = _no_gain(series, rows, seconds)
            series[rows] = pass_s[rows] = seconds
            if saturated:
                break
        else:
            self._short_of_rows |= self._is_over(PADDED_SIZES[-1])
        return latent

    def _is_worth(self, pass_s: _Taken, rows: float) -> bool:
        # Whether so many rows may be measured too, in view of the time that the job takes as far as that is known
        known = replace(self._estimate, pass_s=_points(pass_s))
        job_s = self._images * max(image_s(known, self._task), image_s(self._estimate, self._task))
        return self._spent_s + STEPS * at(known.pass_s, rows) <= SHARE * job_s

    def _is_over(self, size: int) -> bool:
        # Whether the job's batches are too small for this many images at once
        return size >= 2 * self._task.rows

    def _micro_batches(self) -> Iterator[tuple[Policy, int]]:
        # Each policy to try, and how many rows the denoiser runs at once under it
        if self._base.guidance_split:
            yield from (
                (replace(self._base, micro_batch=size), size) for size in PADDED_SIZES if not self._is_over(size)
            )
            return
        if self._task.guided:
            yield replace(self._base, micro_batch=1, guidance_split=True), 1
        for size in PADDED_SIZES:
            if not self._is_over(size):
                yield (
                    replace(self._base, micro_batch=size, guidance_split=False),
                    size * (2 if self._task.guided else 1),
                )

    def _decode(self, latent: Any) -> tuple[_Taken, Pieces]:
        decode_bytes = _Taken()
        decode_s: dict[int, Points] = {}
        for tile_px in (*reversed(self._task.tiles_px), 0):  # smallest first
            width, height = self._task.piece(tile_px)
            piece = self._engine.crop(latent, width, height)
            if not decode_s:  # brings the weights in and loads kernels
                self._decode_call([piece])
            series = self._decode_series(piece, width * height, decode_bytes)
            if series:
                decode_s[width * height] = _points(series)
        if not decode_s:
            raise self._too_little("decode")
        return decode_bytes, tuple(sorted(decode_s.items()))

    def _decode_series(self, piece: Any, pixels: int, decode_bytes: _Taken) -> _Taken:
        # Decode more and more of these pieces at once, until more do not fit or gain; seconds of each call
        series = _Taken()
        for size in PADDED_SIZES:
            if size > 1 and size * pixels > _BUSY_PIXELS:
                break
            if self._is_over(size):
                self._short_of_rows = True
                break
            together = size * pixels
            if decode_bytes and not self._fits(at(_points(decode_bytes), together)):
                self._cut = True
                break
            seconds = self._decode_call([piece] * size)
            if seconds is None:
                break
            decode_bytes[together] = max(self._taken_bytes(), decode_bytes.get(together, 0))
            saturated = _no_gain(series, size, seconds)
            series[size] = seconds
            if saturated:
                break
        return series

    def _decode_call(self, rows: list[Any]) -> float | None:
        # Seconds; None when memory is refused
        policy = replace(self._base, decode_chunk=len(rows), tile_px=0)
        for _ in range(2):
            watch = Stopwatch()
            with watch:
                made = self._try(self._engine.decode, rows, policy)
            if made is None:
                return None
            if watch.seconds() > _SHORT_S:
                break
        return watch.seconds()

    def _try(self, work: Callable[..., Any], *arguments: Any) -> Any:
        # None when memory is refused
        try:
            self._base_bytes = self._gauge.begin()
            return work(*arguments)
        except Exception as error:
            if not self._engine.is_out_of_memory(error):
                raise
        self._cut = True
        self._engine.recover()
        if work != self._engine.prepare:
            self._engine.prepare(self._base)
        return None

    def _taken_bytes(self) -> int:
        return max(0, self._gauge.peak_bytes() - self._base_bytes)

    def _fits(self, more_bytes: float) -> bool:
        return self._base_bytes + more_bytes <= _USED_SHARE * self._gauge.free_bytes()

    def _prompts(self, count: int, steps: int = STEPS) -> list[Prompt]:
        return prompts_of(self._task, count, steps)

    def _too_little(self, stage: str) -> MemoryNeededError:
        needed_bytes = peak_bytes(self._estimate, _least(self._base, PROBED_UNDER[-1]), self._task)
        return MemoryNeededError(
            f"{self._task.width}x{self._task.height} px: not even one image at a time fits ({stage}); about "
            f"{needed_bytes / GIB:.1f} GiB of free device memory are needed, but only "
            f"{self._gauge.free_bytes() / GIB:.2f} GiB are free: free some, or make smaller images"
        )


def _points(taken: _Taken) -> Points:
    return tuple(sorted(taken.items()))


def _no_gain(known: _Taken, amount: float, seconds: float) -> bool:
    # Whether this many at once take as long for each as the last number did. Short calls wait for the host, sometimes
    # more and sometimes less, so three of them are needed to tell.
    rates = [one_s / many for many, one_s in known.items()]
    return len(rates) > (2 if seconds < _SHORT_S else 0) and seconds / amount > (1 - _GAIN) * rates[-1]
