"""The policy for a size is the fastest of all that fit. These are pure functions over figures, without torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from batchgen.config.schema import PolicyConfig
from batchgen.errors import MemoryNeededError
from batchgen.memory.costs import Task, batch_s, peak_bytes
from batchgen.memory.figures import Figures, Weights
from batchgen.memory.host_bytes import Host, needed_bytes
from batchgen.padding import PADDED_SIZES
from batchgen.placements import STEADY, UNHOOKED, place_of
from batchgen.policy import STREAM_BUFFERS, Policy
from batchgen.units import GIB

# The placements to choose from, the fastest first. Group offload is not among them, because streaming is faster and
# takes less memory; users can still ask for it.
CHOSEN_FROM = ("resident", "text_offload", "model_offload", "weight_streaming", "sequential_offload")
# There are also sizes between those that rows are padded to: where twice as many rows do not fit, half more may.
MICRO_BATCHES = tuple(sorted((*PADDED_SIZES, 3, 6, 12, 24)))
# This much is kept free for fragments, for what other processes may still take, and for errors of the figures. The
# share is smaller for figures that were measured than for estimates.
_MARGIN_BYTES = 192 << 20
_MARGIN_SHARE = {True: 0.04, False: 0.15}
# Of policies that are within this factor of the fastest, the simplest and then the smallest wins.
_AS_FAST = 1.02
# Tiles must be worth their seams, small tiles more so: tiles of 512 px must gain 1%, of 256 px 4%, of 128 px 15%.
_SEAMS_PX = 50


@dataclass(frozen=True, slots=True)
class Option:
    """A policy and what it would take: the peak of bytes on the device, and the seconds of a batch."""

    policy: Policy
    peak_bytes: int
    seconds: float

    @property
    def name(self) -> str:
        """A name for people, made of what sets this policy apart."""
        policy = self.policy
        parts = [policy.placement.replace("_", " ")]
        parts += [f"{policy.stream_buffers} buffers"] if policy.placement == "weight_streaming" else []
        parts += [f"micro-batch {policy.micro_batch}"]
        parts += ["guidance split"] if policy.guidance_split else []
        parts += [f"decode chunk {policy.decode_chunk}"]
        return ", ".join(parts + ([f"tiles of {policy.tile_px} px"] if policy.tile_px else []))


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and why, and the best option of each other placement with the reason why it was not chosen.

    `host_bytes`: what it takes of the host's memory at least.
    """

    option: Option
    reason: str
    others: tuple[tuple[Option, str], ...]
    host_bytes: int

    def table(self) -> list[str]:
        """One line for each of the other options."""
        return [
            f"{option.name}: {option.peak_bytes / GIB:.1f} GiB, {option.seconds:.1f} s a batch: {against}"
            for option, against in self.others
        ]


def choose(figures: Figures, task: Task, budget_bytes: int, host: Host, fixed: PolicyConfig, base: Policy) -> Choice:
    """The fastest policy that fits into `budget_bytes` of the device, and whose weights the host can hold.

    Fields that the user fixed stay; fields that are neither fixed nor matter for memory come from `base`. If nothing
    fits with a margin, the smallest policy that fits without it is taken. Raises MemoryNeededError if none fits.
    """
    options = [
        Option(policy, peak_bytes(figures, policy, task), batch_s(figures, policy, task))
        for policy in _candidates(fixed, base, task)
    ]
    holds = {name: host.holds(figures.weights, name) for name in {one.policy.placement for one in options}}
    held = [one for one in options if holds[one.policy.placement]]
    possible = _fit(held, budget_bytes) or held
    pinnable = [one for one in possible if host.pins(figures.weights, one.policy.placement)]
    # If the host cannot pin that much, weights wait in ordinary memory. That is slower, but no reason to give up.
    considered = pinnable or possible
    if host.room is not None and not _fit(held, budget_bytes) and (_fit(options, budget_bytes) or not held):
        lacking = _lacking_host(figures.weights, budget_bytes, host, fixed.placement is not None, options, held)
        raise MemoryNeededError(f"{task.width}x{task.height} px: {lacking}")
    fitting = _fit(considered, _most_bytes(figures, budget_bytes))
    if fitting:
        best = _fastest(fitting)
    else:
        best = min(considered, key=lambda one: one.peak_bytes)
        if best.peak_bytes > budget_bytes:
            raise MemoryNeededError(
                f"{task.width}x{task.height} px: at least {best.peak_bytes / GIB:.2f} GiB of free device memory are "
                f"needed beside CUDA's context ({best.name}), but only {budget_bytes / GIB:.2f} GiB are free: free "
                "some, or make smaller images"
            )
    others = _others(best, options, held, considered, budget_bytes)
    host_bytes = needed_bytes(figures.weights, best.policy.placement, host.made)
    return Choice(best, _reason(best, _fastest(options), budget_bytes), others, host_bytes)


def fits(figures: Figures, policy: Policy, task: Task, budget_bytes: int) -> bool:
    """Whether a policy's peak leaves the margin free, of `budget_bytes` of the device."""
    return peak_bytes(figures, policy, task) <= _most_bytes(figures, budget_bytes)


def _most_bytes(figures: Figures, budget_bytes: int) -> int:
    return budget_bytes - max(_MARGIN_BYTES, int(_MARGIN_SHARE[figures.measured] * budget_bytes))


def _fit(options: list[Option], budget_bytes: int) -> list[Option]:
    return [one for one in options if one.peak_bytes <= budget_bytes]


def _lacking_host(
    weights: Weights, budget_bytes: int, host: Host, by_hand: bool, options: list[Option], held: list[Option]
) -> str:
    # Why nothing is chosen where all that fits into the device takes more of the host's memory than there is
    names = {one.policy.placement for one in _fit(options, budget_bytes) or options}
    least = min(names, key=lambda name: (needed_bytes(weights, name, host.made), place_of(name)))
    instead = []
    if held:
        best = min(held, key=lambda one: one.peak_bytes)
        instead = [f"have {best.peak_bytes / GIB:.1f} GiB of device memory free beside CUDA's context ({best.name})"]
    free = f"with {budget_bytes / GIB:.2f} GiB of device memory free"
    return f"{free}, {host.lacks(weights, least, by_hand, instead)}"


def _candidates(fixed: PolicyConfig, base: Policy, task: Task) -> Iterator[Policy]:
    micro_batches, chunks = ([one for one in sizes if one < 2 * task.rows] for sizes in (MICRO_BATCHES, PADDED_SIZES))
    bound = base.traced or base.compile != "eager"
    allowed = STEADY if base.compile == "graphs" else UNHOOKED if bound else CHOSEN_FROM
    placements = [name for name in CHOSEN_FROM if name in allowed]
    micro_batches = [fixed.micro_batch] if fixed.micro_batch else micro_batches
    splits = [fixed.guidance_split] if fixed.guidance_split is not None else [False, True]
    chunks = [fixed.decode_chunk] if fixed.decode_chunk else chunks
    tiles = [fixed.tile_px] if fixed.tile_px is not None else [0, *task.tiles_px]
    buffers = (fixed.stream_buffers,) if fixed.stream_buffers else STREAM_BUFFERS
    for placement, micro_batch, split, chunk, tile in product(
        [fixed.placement] if fixed.placement else placements, micro_batches, splits, chunks, tiles
    ):
        if split and fixed.guidance_split is None and (micro_batch > 1 or not task.guided):
            continue  # half as many rows without the split take as much
        policy = replace(
            base, placement=placement, micro_batch=micro_batch, guidance_split=split, decode_chunk=chunk, tile_px=tile
        )
        yield from (
            replace(policy, stream_buffers=count)
            for count in (buffers if placement == "weight_streaming" else buffers[:1])
        )


def _fastest(options: list[Option]) -> Option:
    least_s = min(_weighed_s(one) for one in options)
    near = [one for one in options if _weighed_s(one) <= _AS_FAST * least_s]
    return min(near, key=lambda one: (place_of(one.policy.placement), one.peak_bytes, _weighed_s(one)))


def _weighed_s(option: Option) -> float:
    tile_px = option.policy.tile_px
    return option.seconds * (1 + (_SEAMS_PX / tile_px) ** 2 if tile_px else 1)


def _reason(best: Option, fastest: Option, budget_bytes: int) -> str:
    free = f"{budget_bytes / GIB:.1f} GiB free"
    if best.seconds <= _AS_FAST * fastest.seconds:
        return f"{best.name}: {best.peak_bytes / GIB:.1f} GiB of {free}, and nothing is faster"
    slower = math.ceil(100 * (best.seconds / fastest.seconds - 1))
    return (
        f"{best.name}: {best.peak_bytes / GIB:.1f} GiB of {free}; {slower}% slower than {fastest.name}, which needs "
        f"{fastest.peak_bytes / GIB:.1f} GiB"
    )


def _others(
    best: Option, options: list[Option], held: list[Option], considered: list[Option], budget_bytes: int
) -> tuple[tuple[Option, str], ...]:
    found = []
    for placement in dict.fromkeys(one.policy.placement for one in options):
        own = [one for one in options if one.policy.placement == placement]
        if placement == best.policy.placement:
            continue
        fitting = [one for one in own if one.peak_bytes <= budget_bytes]
        option = _fastest(fitting) if fitting else min(own, key=lambda one: one.peak_bytes)
        if not fitting:
            against = "does not fit"
        elif option not in held:
            against = "more than this host's memory"
        elif option not in considered:
            against = "more than this host can pin"
        else:
            slower = round(100 * (option.seconds / best.seconds - 1))
            against = f"{slower}% slower" if slower > 0 else "fits too tightly" if slower < 0 else "no faster"
        found.append((option, against))
    return tuple(found)
