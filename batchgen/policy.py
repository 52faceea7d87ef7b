"""What a policy is: how the model sits in memory, how many rows run at once, and how they are padded. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Rows are padded to one of these, so that few shapes ever run and a short batch wastes little.
PADDED_SIZES = (1, 2, 4, 8, 16, 32)
# What an image may be decoded in, where it is larger.
TILES_PX = (2048, 1024, 512, 256, 128)
# Of weight streaming, what is chosen from: one computes while two are on their way, or more of them. More change no bit
# of an image.
STREAM_BUFFERS = (3, 8, 24)


class Held(NamedTuple):
    """How a placement holds the weights of the parts that run in each stage.

    resident    on the device, always
    staged      on the device while their stage runs
    streamed    packed into groups that cross ahead of use (pipeline/streaming.py)
    blocks, leaves    group offload: one block or layer after the other, ahead of use (diffusers)
    layers      sequential offload: each layer when it is called (accelerate)
    """

    encode: str
    denoise: str
    decode: str


# Every placement, from the fastest to the smallest. The VAE is small and decodes chunk after chunk: it is staged rather
# than brought in piecemeal once for each. What a placement holds, pins and moves follows from this table
# (memory/costs.py), and so does what pipeline/placement.py does.
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
    """Its place among PLACEMENTS; the fastest has 0."""
    return tuple(PLACEMENTS).index(placement)


@dataclass(frozen=True, slots=True)
class Policy:
    """How the model sits in memory and how many rows run at once.

    `tile_px` is the edge of a VAE tile, 0 for no tiling. A `decode_chunk` of 1 is what others call VAE slicing.
    `threads` is of use on the CPU alone, where it is part of what makes images bit-identical. `placement` says where
    the weights wait, by PLACEMENTS; `stream_buffers`: under weight streaming, how many groups of the UNet's layers
    are on the device at once. `guidance_split` runs the two passes of guidance one after the other.
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
    """How many rows run when `rows` are left: the next of 1, 2, 4, 8, 16, 32, and `micro_batch` at most."""
    return min([size for size in PADDED_SIZES if size >= rows] + [micro_batch])


def spans(rows: int, size: int) -> list[range]:
    """`rows` places in pieces of `size`, the last one with what is left."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def pad(rows: Sequence[int], target: int) -> list[int]:
    """Places of rows, filled up to `target` by the last one again."""
    return [*rows, *[rows[-1]] * (target - len(rows))]
