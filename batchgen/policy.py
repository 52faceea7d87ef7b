"""What a policy is: how the model sits in memory, how many rows run at once, and how they are padded. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Rows are padded to one of these, so that few shapes ever run and a short batch wastes little.
PADDED_SIZES = (1, 2, 4, 8, 16, 32)
# The tiles in which an image that is larger may be decoded.
TILES_PX = (2048, 1024, 512, 256, 128)
# How many groups weight streaming may have on the device: one computes while the others, two or more, are on their way.
# The number changes no bit of an image.
STREAM_BUFFERS = (3, 8, 24)


class Held(NamedTuple):
    """How a placement holds the weights of the parts that run in each stage.

    resident    they are always on the device
    staged      they are on the device while their stage runs
    streamed    they are packed into groups that are copied ahead of use (pipeline/streaming.py)
    blocks, leaves    group offload copies one block or layer after the other ahead of use (diffusers)
    layers      sequential offload copies each layer when it is called (accelerate)
    """

    encode: str
    denoise: str
    decode: str


# Every placement, from the fastest to the smallest. The VAE is small and decodes chunk after chunk, so it is staged
# whole and not brought in piece by piece for each chunk. memory/costs.py derives from this table what a placement
# holds, pins and moves, and pipeline/placement.py what it does.
PLACEMENTS = {
    "resident": Held("resident", "resident", "resident"),
    "text_offload": Held("staged", "resident", "resident"),
    "model_offload": Held("staged", "staged", "staged"),
    "weight_streaming": Held("streamed", "streamed", "staged"),
    "group_offload_block": Held("staged", "blocks", "staged"),
    "group_offload_leaf": Held("staged", "leaves", "staged"),
    "sequential_offload": Held("layers", "layers", "staged"),
}
# Under these the denoiser's weights stay where they are while it runs; under the others hooks move them.
UNHOOKED = tuple(name for name, held in PLACEMENTS.items() if held.denoise in ("resident", "staged"))


def place_of(placement: str) -> int:
    """The place of a placement among PLACEMENTS; the fastest has 0."""
    return tuple(PLACEMENTS).index(placement)


@dataclass(frozen=True, slots=True)
class Policy:
    """How the model sits in memory and how many rows run at once.

    `tile_px` is the edge of a VAE tile, 0 for no tiling. A `decode_chunk` of 1 is what others call VAE slicing.
    `threads` matters only on the CPU, where images are bit-identical only with the same number. `placement`, one of
    PLACEMENTS, says where the weights wait. `stream_buffers` is how many groups of the denoiser's layers are on the
    device at once under weight streaming. `guidance_split` runs the two passes of guidance one after the other.
    """

    micro_batch: int
    decode_chunk: int
    tile_px: int
    placement: str
    dtype: str
    threads: int
    guidance_split: bool = False
    channels_last: bool = False
    traced: bool = False
    attention: str = "sdpa"
    stream_buffers: int = 3


def padded_rows(rows: int, micro_batch: int) -> int:
    """How many rows run when `rows` are left: the next of 1, 2, 4, 8, 16, 32, but at most `micro_batch`."""
    return min([size for size in PADDED_SIZES if size >= rows] + [micro_batch])


def spans(rows: int, size: int) -> list[range]:
    """The places 0 to `rows` cut into pieces of `size`; the last piece holds what is left."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def pad(rows: Sequence[int], target: int) -> list[int]:
    """The places of rows, with the last one repeated until there are `target` of them."""
    return [*rows, *[rows[-1]] * (target - len(rows))]
