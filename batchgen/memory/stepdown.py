"""The next smaller policy after an out-of-memory error, for the stage that failed. Pure, without torch."""

from collections.abc import Collection
from dataclasses import replace

from batchgen.memory.choose import CHOSEN_FROM
from batchgen.padding import PADDED_SIZES
from batchgen.placements import UNHOOKED, place_of
from batchgen.policy import STREAM_BUFFERS, Policy

_SMALLEST_TILE_PX = 128


def step_down(
    policy: Policy,
    stage: str,
    width: int,
    height: int,
    guided: bool = True,
    placements: Collection[str] = CHOSEN_FROM,
) -> Policy | None:
    """The policy to try after `stage` ran out of memory; None if nothing is smaller.

    `stage` is load, compile, encode, denoise or decode. `guided` is whether the denoised rows have guidance; without
    guidance there is nothing to split. `placements` are those that the host has the memory for.

    What costs little speed comes first: CUDA graphs give their memory back, and nothing else changes. Then weights are
    sent less far ahead, then fewer rows run at once, then less of the image or of guidance runs at once, then weights
    wait in host memory.
    """
    if policy.compile == "graphs":
        return policy.without_graphs
    if stage == "compile":
        return replace(policy, compile="eager")
    if stage == "denoise":
        if policy.stream_buffers > STREAM_BUFFERS[0]:
            return replace(policy, stream_buffers=STREAM_BUFFERS[0])
        if policy.micro_batch > 1:
            return replace(policy, micro_batch=max(size for size in PADDED_SIZES if size < policy.micro_batch))
        if guided and not policy.guidance_split:
            return replace(policy, guidance_split=True)
    if stage == "decode":
        if policy.decode_chunk > 1:
            return replace(policy, decode_chunk=policy.decode_chunk // 2)
        if (tile_px := _smaller_tile(policy.tile_px, max(width, height))) is not None:
            return replace(policy, tile_px=tile_px)
    smaller = [
        name for name in CHOSEN_FROM if name in placements and place_of(name) > place_of(policy.placement)
    ]  # fmt: skip
    if not smaller:
        return None
    placement = smaller[0]
    # A trace records where the weights are, and hooks stop what is compiled.
    stays = placement in UNHOOKED
    compiled = policy.compile if stays else "eager"
    return replace(policy, placement=placement, traced=policy.traced and stays, compile=compiled)


def _smaller_tile(tile_px: int, edge_px: int) -> int | None:
    # The next power of two below the tile, or below the image if there are no tiles yet
    largest = (tile_px or edge_px) - 1
    smaller = 1 << (largest.bit_length() - 1)
    return smaller if smaller >= _SMALLEST_TILE_PX else None
