"""The policy if there is no device memory to plan for, and what dtype `auto` means. Pure functions, without torch.

The number of rows goes by the size of the image: on the CPU a batch of small images runs whole, while a 4k image runs
by itself. On a GPU memory/choose.py chooses.
"""

from batchgen.config.schema import PolicyConfig, SpeedConfig
from batchgen.errors import ConfigError
from batchgen.policy import STREAM_BUFFERS, Policy

# Pixels denoised at once by default: 8 rows of 512x512.
_MICRO_BATCH_PIXELS = 8 * 512 * 512
_MAX_MICRO_BATCH = 16
_MAX_DECODE_CHUNK = 4
# A VAE decodes 512x512 whole in little memory; above 1024x1024 tiling is worth its seams.
_TILE_ABOVE_PIXELS = 1024 * 1024
_TILE_PX = 512
_MAX_THREADS = 4
_FIRST_FAST_IN_FP16 = (7, 0)
_FIRST_WITH_BF16 = (8, 0)


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
        threads=fixed.threads or min(_MAX_THREADS, cpu_count),
        stream_buffers=fixed.stream_buffers or STREAM_BUFFERS[0],
        guidance_split=bool(fixed.guidance_split),
        channels_last=speed.channels_last,
        traced=speed.traced,
        attention=speed.attention,
    )


def resolve_dtype(dtype: str, capability: tuple[int, int] | None) -> str:
    """What 'auto' means on a GPU of this compute capability (None: the CPU); any other dtype is returned as it is.

    auto is fp16 where the GPU is fast in it: from 7.0 (Volta) on, and on 6.0. On older GPUs and on the CPU it is fp32.
    bf16 came with 8.0 (Ampere), and torch emulates it slowly on older GPUs; asking for it there raises ConfigError.
    """
    if dtype == "bf16" and capability is not None and capability < _FIRST_WITH_BF16:
        raise ConfigError("model.dtype=bf16: this GPU does not support bf16; use fp16 or auto")
    if dtype != "auto":
        return dtype
    fast = capability is not None and (capability >= _FIRST_FAST_IN_FP16 or capability == (6, 0))
    return "fp16" if fast else "fp32"
