"""Where the weights may wait: the one table of placements. No torch."""

from typing import NamedTuple


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
# Under these they stay for the whole run, which CUDA graphs need: they hold the weights' addresses.
STEADY = tuple(name for name, held in PLACEMENTS.items() if held.denoise == "resident")


def place_of(placement: str) -> int:
    """The place of a placement among PLACEMENTS; the fastest has 0."""
    return tuple(PLACEMENTS).index(placement)
