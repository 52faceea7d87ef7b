"""The costs of weight streaming: how a denoiser's layers are packed, and how long a pass takes with copying. Pure."""

import math
import re
from functools import lru_cache

# Buffers on the device are used in turn. Each has this size, or that of the largest layer if it is larger.
GROUP_BYTES = 64 << 20
_TEXT_PLACES = 77
_PASSES = 3  # the first ones fill the buffers
_STAGES = {"down_blocks": 1, "mid_block": 2, "up_blocks": 3}
_PART = re.compile(
    r"(down_blocks|mid_block|up_blocks)\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)"
)

Groups = tuple[tuple[float, float], ...]
"""(bytes of weights, share of a pass's computing) for each group, in the order in which they run."""


def pack(layers: dict[str, int], value_bytes: int, resolutions: int, places: int) -> Groups:
    """The groups that weight streaming makes of a UNet's layers: {name in diffusers: number of weights}.

    The computing of a layer is in proportion to its weights and to the places of the latent where it sits, for
    self-attention to their square. The UNet has `resolutions`; at the first the latent has `places`.
    """
    groups: list[tuple[float, float]] = []
    size_bytes = computed = 0.0
    for name in sorted(layers, key=turn):
        own_bytes = layers[name] * value_bytes
        if size_bytes and size_bytes + own_bytes > GROUP_BYTES:
            groups.append((size_bytes, computed))
            size_bytes = computed = 0.0
        size_bytes += own_bytes
        computed += _computed(name, layers[name], places / 4 ** _level(turn(name), resolutions - 1))
    groups.append((size_bytes, computed))
    whole = sum(computed for _, computed in groups) or 1.0
    return tuple((size_bytes, computed / whole) for size_bytes, computed in groups)


def pack_evenly(layers: dict[str, int], value_bytes: int) -> Groups:
    """The groups of a transformer's layers, whose blocks run in the order of their numbers, all for every token."""
    groups: list[float] = []
    for name in sorted(layers, key=_in_order):
        own_bytes = float(layers[name] * value_bytes)
        if groups and groups[-1] + own_bytes <= GROUP_BYTES:
            groups[-1] += own_bytes
        else:
            groups.append(own_bytes)
    whole = sum(groups) or 1.0
    return tuple((size_bytes, size_bytes / whole) for size_bytes in groups)


def _in_order(name: str) -> list[tuple[int, str]]:
    # A key to sort names by, in which numbers are numbers
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def turn(name: str) -> tuple[int, ...]:
    """When a layer runs, as a key to sort by. The layers of one residual or attention block have the same key."""
    found = _PART.match(name)
    if found is None:
        return (4,) if name.startswith(("conv_norm_out", "conv_out")) else (0,)
    stage, block, part, number = found.groups()
    return _STAGES[stage], int(block or 0), part.endswith("samplers"), int(number), part == "attentions"


def _level(place: tuple[int, ...], last: int) -> int:
    # How often the latent has been halved where a layer sits: each sampler on the way down halves it, and up doubles it
    if len(place) == 1:
        return 0
    stage, block, sampler = place[:3]
    level = {1: block + sampler, 2: last, 3: last - block - sampler}[stage]
    return min(max(level, 0), last)


def _computed(name: str, weights: int, places: float) -> float:
    # The number of multiplications; layers that run once for a row do not count beside them
    if "time_emb" in name or name.startswith("add_embedding"):
        return 0.0
    if name.endswith(("attn2.to_k", "attn2.to_v")):
        return weights * _TEXT_PLACES
    attention = 2 * places**2 * math.sqrt(weights) if name.endswith("attn1.to_q") else 0.0
    return weights * places + attention


@lru_cache(maxsize=1024)
def pass_s(groups: Groups, compute_s: float, copied_bytes_per_s: float, buffers: int) -> float:
    """Seconds of one of many passes, each of which computes for `compute_s` while its groups are copied.

    It follows pipeline/streaming.py: one copy runs after the other, each as soon as a buffer is free. A group computes
    as soon as it has arrived and the group before it is done.
    """
    buffers = min(buffers, len(groups))
    done = [0.0] * buffers  # for each buffer: when the group that used it last was computed
    copied = computed = began = 0.0
    for number in range(_PASSES):
        began = computed
        for place, (size_bytes, share) in enumerate(groups):
            buffer = (number * len(groups) + place) % buffers
            copied = max(copied, done[buffer]) + size_bytes / copied_bytes_per_s
            computed = max(computed, copied) + share * compute_s
            done[buffer] = computed
    return computed - began
