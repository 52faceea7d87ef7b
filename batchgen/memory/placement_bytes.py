"""How many bytes of weights a placement has on the device, and page-locked in the host's memory. Pure, no torch."""

from batchgen.memory import streaming_costs
from batchgen.memory.figures import Weights
from batchgen.placements import PLACEMENTS
from batchgen.policy import STREAM_BUFFERS

# The share of the weights that diffusers' group offload by blocks has on the device at once (measured with SD 1.5 and
# SDXL).
_BLOCK_SHARE = 0.75


def held_bytes(weights: Weights, placement: str, stream_buffers: int = STREAM_BUFFERS[0]) -> tuple[int, int, int]:
    """Bytes of weights on the device while it encodes, denoises and decodes: resident parts and those of the stage."""
    held = PLACEMENTS[placement]
    own = (
        _own_bytes(held.encode, weights.text_bytes, weights.largest_text_layer_bytes, STREAM_BUFFERS[0]),
        _own_bytes(held.denoise, weights.unet_bytes, weights.largest_unet_layer_bytes, stream_buffers),
        _own_bytes(held.decode, weights.vae_bytes, weights.vae_bytes, STREAM_BUFFERS[0]),
    )
    resident = [size if how == "resident" else 0 for how, size in zip(held, weights.parts_bytes, strict=True)]
    encode, denoise, decode = (sum(resident) - always + its_own for always, its_own in zip(resident, own, strict=True))
    return encode, denoise, decode


def pinned_bytes(weights: Weights, placement: str) -> int:
    """Bytes of page-locked host memory that a placement keeps, which are all weights that are not resident."""
    return sum(waiting_bytes(weights, placement))


def waiting_bytes(weights: Weights, placement: str) -> tuple[int, ...]:
    """Bytes of the weights of each part that wait in the host's memory: those that are not resident."""
    held = zip(PLACEMENTS[placement], weights.parts_bytes, strict=True)
    return tuple(0 if how == "resident" else size for how, size in held)


def _own_bytes(how: str, total: int, largest: int, buffers: int) -> int:
    # Bytes of a part's weights on the device while it runs; `total` and `largest` are the bytes of all and of its
    # largest layer
    if how == "streamed":
        return min(total, buffers * max(streaming_costs.GROUP_BYTES, largest))
    if how == "blocks":
        return int(_BLOCK_SHARE * total)
    if how == "leaves":
        return min(total, 2 * largest)
    return largest if how == "layers" else total
