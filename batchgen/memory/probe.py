"""A short probe: the model runs a few steps and decodes on the device that is to do the work, and is measured.

No torch here: what runs is the engine, what measures is the gauge.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from batchgen.errors import MemoryNeededError
from batchgen.memory.costs import Task, held_bytes, peak_bytes, tiles
from batchgen.memory.figures import Figures
from batchgen.memory.meters import Stopwatch
from batchgen.memory.policy import PADDED_SIZES
from batchgen.types import Policy, Prompt

# The placements that it may run under, the one that says most first.
PROBED_UNDER = ("resident", "model_offload", "weight_streaming")
_STEPS = 3
_TEXT = "a photo of an astronaut riding a horse on mars"
_TILES_PX = (512, 256, 128)
# More at once is of no use when it gains less than this share.
_GAIN = 0.02
_USED_SHARE = 0.9  # of the memory that is free: the figures are not known yet
GIB = 1 << 30


class Engine(Protocol):
    """What a probe needs of an engine."""

    def prepare(self, policy: Policy) -> tuple[Policy, str | None]:
        """Set up for the policy."""

    def encode(self, prompts: list[Prompt]) -> Any:
        """Texts."""

    def denoise(self, texts: Any, prompts: list[Prompt], policy: Policy) -> list[Any]:
        """Latents."""

    def decode(self, latents: list[Any], policy: Policy) -> list[Any]:
        """Images."""

    def passes(self) -> AbstractContextManager[list[Stopwatch]]:
        """Within it, the UNet's calls are timed: one stopwatch for each."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory was refused."""

    def recover(self) -> None:
        """Free what can be freed."""


class Gauge(Protocol):
    """What a probe needs to know of the device."""

    def free_bytes(self) -> int:
        """What may be allocated in all."""

    def begin(self) -> int:
        """Begin to look for a peak; what is allocated now."""

    def peak_bytes(self) -> int:
        """The most since `begin`."""

    def copied_bytes_per_s(self) -> float:
        """From the host."""


def probed_placement(estimate: Figures, task: Task, base: Policy, free_bytes: int) -> str:
    """Under which placement to probe: that of the most weights that leaves room for a row or two."""
    for placement in PROBED_UNDER:
        policy = replace(base, placement=placement, micro_batch=1, decode_chunk=1, guidance_split=True, tile_px=256)
        if peak_bytes(estimate, policy, task) <= _USED_SHARE * free_bytes:
            return placement
    return PROBED_UNDER[-1]


def probe(engine: Engine, gauge: Gauge, estimate: Figures, task: Task, base: Policy, placement: str) -> Figures:
    """The figures of this size, measured. It takes seconds on a fast card, half a minute on a slow one.

    Series of growing batches end before memory does, by what the ones before them took, and at an out-of-memory error.
    Raises MemoryNeededError if not even the smallest call fits.
    """
    return _Probe(engine, gauge, estimate, task, replace(base, placement=placement)).figures()


class _Probe:
    def __init__(self, engine: Engine, gauge: Gauge, estimate: Figures, task: Task, base: Policy) -> None:
        self._engine, self._gauge, self._estimate, self._task, self._base = engine, gauge, estimate, task, base
        self._base_bytes = 0
        self._cut = False

    def figures(self) -> Figures:
        if self._try(self._engine.prepare, self._base) is None:
            raise self._too_little("load")
        encode_bytes, texts = self._encode()
        row_bytes, pass_s, latent = self._denoise(texts)
        pixel_bytes, decode_s = self._decode(latent)
        return replace(
            self._estimate,
            encode_bytes=encode_bytes,
            row_bytes=row_bytes,
            pixel_bytes=pixel_bytes,
            pass_s=tuple(sorted(pass_s.items())),
            decode_s=tuple(sorted(decode_s.items())),
            copied_bytes_per_s=self._gauge.copied_bytes_per_s(),
            measured=True,
            cut_at_bytes=self._gauge.free_bytes() if self._cut else None,
        )

    def _encode(self) -> tuple[int, Any]:
        before = self._gauge.begin()
        texts = self._try(self._engine.encode, self._prompts(1))
        if texts is None:
            raise self._too_little("encode")
        # Beside its weights, which are in place before or come in during it
        held = held_bytes(self._estimate.weights, self._base.placement)[0]
        return max(self._gauge.peak_bytes() - max(before, held), self._estimate.encode_bytes), texts

    def _denoise(self, texts: Any) -> tuple[float, dict[float, float], Any]:
        row_bytes, pass_s, latents = 0.0, dict[float, float](), None
        for policy, rows in self._micro_batches():
            prompts = self._prompts(policy.micro_batch)
            self._engine.prepare(policy)
            if (
                not pass_s
            ):  # brings the weights in and loads kernels; a second time, since streaming learns an order first
                self._try(self._engine.denoise, texts, prompts, policy)
                self._try(self._engine.denoise, texts, prompts, policy)
            if row_bytes and not self._fits(row_bytes * rows):
                self._cut = True
                break
            with self._engine.passes() as watches:
                made = self._try(self._engine.denoise, texts, prompts, policy)
            if made is None:
                break
            latents = made
            row_bytes = max(row_bytes, self._taken_bytes() / rows)
            saturated = _no_gain(pass_s, rows, seconds := min(watch.seconds() for watch in watches))
            pass_s[rows] = seconds / (2 if policy.guidance_split else 1)
            if saturated:
                break
        if latents is None:
            raise self._too_little("denoise")
        return row_bytes, pass_s, latents[0]

    def _micro_batches(self) -> Iterator[tuple[Policy, int]]:
        # The policy, and the rows that the UNet runs at once under it
        if self._task.guided:
            yield replace(self._base, micro_batch=1, guidance_split=True), 1
        for size in PADDED_SIZES:
            if size < 2 * self._task.rows:
                yield (
                    replace(self._base, micro_batch=size, guidance_split=False),
                    size * (2 if self._task.guided else 1),
                )

    def _decode(self, latent: Any) -> tuple[float, dict[float, float]]:
        pixel_bytes, decode_s = 0.0, dict[float, float]()
        for policy, pixels in self._chunks():
            expected = (pixel_bytes or self._estimate.pixel_bytes) * pixels
            if not self._fits(expected) and (decode_s or not policy.tile_px):
                self._cut = True
                continue
            rows = [latent] * policy.decode_chunk
            if not decode_s:
                self._try(self._engine.decode, rows, policy)
            watch = Stopwatch()
            with watch:
                made = self._try(self._engine.decode, rows, policy)
            if made is None:
                continue
            pixel_bytes = max(pixel_bytes, self._taken_bytes() / pixels)
            seconds = watch.seconds() / tiles(policy, self._task)
            saturated = pixels >= 2 * self._task.pixels and _no_gain(decode_s, pixels, seconds)
            decode_s[pixels] = seconds
            if saturated:
                break
        if not decode_s:
            raise self._too_little("decode")
        return pixel_bytes, decode_s

    def _chunks(self) -> Iterator[tuple[Policy, int]]:
        # The policy, and the pixels that the VAE decodes at once under it, fewest first
        edge = min(self._task.width, self._task.height)
        for tile_px in sorted(_TILES_PX):
            if tile_px < edge:
                yield replace(self._base, decode_chunk=1, tile_px=tile_px), tile_px**2
        for size in PADDED_SIZES:
            if size < 2 * self._task.rows:
                yield replace(self._base, decode_chunk=size, tile_px=0), size * self._task.pixels

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

    def _prompts(self, count: int) -> list[Prompt]:
        task = self._task
        return [
            Prompt(
                str(place), _TEXT, "", place, task.width, task.height, _STEPS, 7.5 if task.guided else 1.0, "probe", 1
            )
            for place in range(count)
        ]

    def _too_little(self, stage: str) -> MemoryNeededError:
        return MemoryNeededError(
            f"{self._task.width}x{self._task.height} px: not even one image at a time fits ({stage}); "
            f"{self._gauge.free_bytes() / GIB:.2f} GiB of device memory are free: free some, or make smaller images"
        )


def _no_gain(known: dict[float, float], amount: float, seconds: float) -> bool:
    # Whether so many at once take as long each as the last ones did; false before there are three
    rates = [one_s / many for many, one_s in known.items()]
    return len(rates) > 2 and seconds / amount > (1 - _GAIN) * rates[-1]
