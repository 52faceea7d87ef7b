"""The policy where no memory of a device is planned for: rows by the size of the image. Pure functions, no torch.

On the CPU a batch of small images runs whole, and a 4k image runs by itself; on a GPU memory/choose.py chooses.
"""

from batchgen.config.schema import PolicyConfig, SpeedConfig
from batchgen.policy import STREAM_BUFFERS, Policy

# Pixels denoised at once by default: 8 rows of 512x512.
_MICRO_BATCH_PIXELS = 8 * 512 * 512
_MAX_MICRO_BATCH = 16
_MAX_DECODE_CHUNK = 4
# A VAE decodes 512x512 whole in little memory; above 1024x1024 tiling is worth its seams.
_TILE_ABOVE_PIXELS = 1024 * 1024
_TILE_PX = 512
_MAX_THREADS = 4


def threads_of(fixed: PolicyConfig, cpu_count: int) -> int:
    """How many threads torch uses on the CPU."""
    return fixed.threads or min(_MAX_THREADS, cpu_count)


def default_policy(
    fixed: PolicyConfig, speed: SpeedConfig, width: int, height: int, dtype: str, cpu_count: int
) -> Policy:
    """The policy for images of `width` x `height` px. Fields that the user fixed stay as they are.

    `threads` is capped: images are equal only with the same number, so the next machine must have as many, too.
    """
    pixels = width * height
    micro_batch = fixed.micro_batch or max(1, min(_MAX_MICRO_BATCH, _MICRO_BATCH_PIXELS // pixels))
    tile_px = _TILE_PX if pixels > _TILE_ABOVE_PIXELS else 0
    return Policy(
        micro_batch=micro_batch,
        decode_chunk=fixed.decode_chunk or min(_MAX_DECODE_CHUNK, micro_batch),
        tile_px=tile_px if fixed.tile_px is None else fixed.tile_px,
        placement=fixed.placement or "resident",
        dtype=dtype,
        threads=threads_of(fixed, cpu_count),
        stream_buffers=fixed.stream_buffers or STREAM_BUFFERS[0],
        guidance_split=bool(fixed.guidance_split),
        channels_last=speed.channels_last,
        traced=speed.traced,
        attention=speed.attention,
        compile="eager" if speed.compile == "auto" else speed.compile,
    )
