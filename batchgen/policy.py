"""What a policy is: how the model sits in memory and how many rows run at once. No torch."""

from dataclasses import dataclass, replace

# The tiles in which an image that is larger may be decoded.
TILES_PX = (2048, 1024, 512, 256, 128)
# How many groups weight streaming may have on the device: one computes while the others, two or more, are on their way.
# The number changes no bit of an image.
STREAM_BUFFERS = (3, 8, 24)


@dataclass(frozen=True, slots=True)
class Policy:
    """How the model sits in memory and how many rows run at once.

    `tile_px` is the edge of a VAE tile, 0 for no tiling. A `decode_chunk` of 1 is what others call VAE slicing.
    `threads` matters only on the CPU, where images are bit-identical only with the same number. `placement`, one of
    PLACEMENTS, says where the weights wait. `stream_buffers` is how many groups of the denoiser's layers are on the
    device at once under weight streaming. `guidance_split` runs the two passes of guidance one after the other.
    `compile` says how whole micro-batches and decode chunks are computed: eager, or by code that torch.compile makes
    for that one shape, of the whole denoiser or of its repeated blocks. Fewer rows are always computed eagerly. graphs:
    as whole, and the kernels of a pass are launched together (CUDA graphs), in memory that is kept for it.
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
    compile: str = "eager"

    @property
    def without_graphs(self) -> "Policy":
        """The policy without CUDA graphs. It makes the same bits, because graphs only launch the same kernels."""
        return replace(self, compile="whole") if self.compile == "graphs" else self
