"""The policy without a device's memory to plan for: rows by the size of the image. And freezing: what is chosen stays.

Pure functions, no torch. On the CPU a batch of small images runs whole while a 4k image runs alone; on a GPU
memory/choose.py chooses.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from batchgen.config import PLACEMENTS, PolicyConfig, SpeedConfig
from batchgen.errors import BrokenRunError, ConfigError
from batchgen.files import put_new, to_json
from batchgen.types import Policy

# Rows are padded to one of these, so that few shapes ever run and a short batch wastes little.
PADDED_SIZES = (1, 2, 4, 8, 16, 32)
# What an image may be decoded in, where it is larger.
TILES_PX = (2048, 1024, 512, 256, 128)
# Pixels denoised at once by default: 8 rows of 512x512.
_MICRO_BATCH_PIXELS = 8 * 512 * 512
_MAX_MICRO_BATCH = 16
_MAX_DECODE_CHUNK = 4
# A VAE decodes 512x512 whole in little memory; above 1024x1024 the guide's tiling is worth its seams.
_TILE_ABOVE_PIXELS = 1024 * 1024
_TILE_PX = 512
_MAX_THREADS = 4
# Of weight streaming, what is chosen from: one computes while two are on their way, or more of them. More change no bit
# of an image.
STREAM_BUFFERS = (3, 8, 24)
_FIRST_FAST_IN_FP16 = (7, 0)
_FIRST_WITH_BF16 = (8, 0)


def padded_rows(rows: int, micro_batch: int) -> int:
    """How many rows run when `rows` are left: the next of 1, 2, 4, 8, 16, 32, and `micro_batch` at most."""
    return min([size for size in PADDED_SIZES if size >= rows] + [micro_batch])


def choose_policy(
    fixed: PolicyConfig, speed: SpeedConfig, width: int, height: int, dtype: str, cpu_count: int
) -> Policy:
    """The policy for images of `width` x `height` px; fields that the user fixed stay as they are.

    `threads` is capped, since it is part of what makes images equal: it must be had on the next machine too.
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
    """What 'auto' means on a GPU of this compute capability (None: the CPU), or the one that was named.

    auto is fp16 where the GPU is fast in it: from 7.0 (Volta) on, and on 6.0; before, fp32, and so on the CPU. bf16
    came with 8.0 (Ampere); torch emulates it slowly on older ones. Raises ConfigError for that.
    """
    if dtype == "bf16" and capability is not None and capability < _FIRST_WITH_BF16:
        raise ConfigError("model.dtype=bf16: this GPU has no bf16 of its own; use fp16, or auto")
    if dtype != "auto":
        return dtype
    fast = capability is not None and (capability >= _FIRST_FAST_IN_FP16 or capability == (6, 0))
    return "fp16" if fast else "fp32"


def freeze(path: Path, choose: Callable[[], Policy]) -> Policy:
    """The policy that is at `path`; if there is none, what `choose` gives is put there, for all workers and resumes.

    Of two at once the first one's holds. Raises BrokenRunError where the file holds something else.
    """
    if not path.exists():
        put_new(path, policy_bytes(choose()))
    return read_policy(path)


def policy_bytes(policy: Policy) -> bytes:
    """A policy as its file holds it."""
    return to_json(asdict(policy)).encode() + b"\n"


def read_policy(path: Path) -> Policy:
    """The policy at `path`. Raises BrokenRunError where the file holds something else, and OSError."""
    try:
        return _checked(Policy(**json.loads(path.read_bytes())))
    except (ValueError, TypeError) as error:
        raise BrokenRunError(f"{path} does not hold a policy ({error}); remove it to choose anew") from error


def _checked(policy: Policy) -> Policy:
    """A policy that can be worked by: else each row that meets it fails, and is given up. Raises ValueError."""
    least = {"micro_batch": 1, "decode_chunk": 1, "tile_px": 0, "threads": 1, "stream_buffers": 1}
    for name, at_least in least.items():
        value = getattr(policy, name)
        if type(value) is not int or value < at_least:
            raise ValueError(f"{name} is {value!r}")
    if policy.placement not in PLACEMENTS:
        raise ValueError(f"placement is {policy.placement!r}")
    return policy


def spans(rows: int, size: int) -> list[range]:
    """`rows` places in pieces of `size`, the last one with what is left."""
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def pad(rows: Sequence[int], target: int) -> list[int]:
    """Places of rows, filled up to `target` by the last one again."""
    return [*rows, *[rows[-1]] * (target - len(rows))]
