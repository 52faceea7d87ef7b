"""Figures of models on cards, for tests of what is chosen there. No torch."""

from batchgen.memory.figures import Figures, Weights
from batchgen.memory.streaming_costs import Groups

MIB, GIB = 1 << 20, 1 << 30
SD15 = Weights(246_120_960, 1_719_041_928, 167_307_726, 75_890_688, 58_982_400, 282, 2)
SDXL = Weights(1_635_000_000, 5_135_000_000, 334_600_000, 126_480_000, 58_982_400, 796, 4)

# Groups of their UNets under weight streaming, in order: MiB, and thousandths of what is computed
_SD15_GROUPS = (
    (63, 185), (49, 41), (55, 18), (41, 14), (63, 20), (63, 21), (59, 5), (59, 5), (59, 5), (54, 5), (41, 3), (59, 5),
    (59, 5), (34, 3), (59, 5), (34, 3), (59, 5), (63, 12), (59, 19), (60, 20), (41, 14), (59, 19), (60, 20), (41, 14),
    (45, 14), (58, 19), (41, 14), (63, 86), (56, 72), (62, 195), (18, 138),
)  # fmt: skip
_SDXL_GROUPS = (
    (63, 51), (59, 41), (63, 14), (58, 9), (41, 6), (63, 9), (61, 10), (61, 10), (63, 9), (63, 9), (63, 9), (63, 9),
    (63, 9), (54, 8), (47, 7), (60, 9), (63, 9), (61, 10), (61, 10), (63, 9), (63, 9), (63, 9), (63, 9), (63, 9),
    (54, 8), (41, 6), (41, 6), (63, 9), (54, 8), (41, 6), (63, 9), (61, 10), (61, 10), (63, 9), (63, 9), (63, 9),
    (63, 9), (63, 9), (54, 8), (47, 7), (28, 4), (59, 9), (63, 9), (61, 10), (61, 10), (63, 9), (63, 9), (63, 9),
    (63, 9), (63, 9), (54, 8), (41, 6), (63, 9), (44, 7), (59, 9), (63, 9), (61, 10), (61, 10), (63, 9), (63, 9),
    (63, 9), (63, 9), (63, 9), (54, 8), (41, 6), (63, 9), (44, 7), (45, 7), (62, 9), (61, 10), (61, 10), (63, 9),
    (63, 9), (63, 9), (63, 9), (63, 9), (54, 8), (41, 6), (63, 9), (44, 7), (63, 46), (64, 46), (62, 45), (63, 89),
)  # fmt: skip


def sd15_512(teraflops: float = 390.0, copied_bytes_per_s: float = 55e9) -> Figures:
    """Stable Diffusion 1.5 at 512x512 in fp16: bytes as measured on an H200, seconds by what the card computes."""
    row_s, image_s, least_s = 0.803 / teraflops, 2.51 / teraflops, 0.01
    return Figures(
        SD15, 50 * MIB, 64 * MIB,
        ((1, 65.4 * MIB),),
        tuple((rows, max(least_s, rows * row_s)) for rows in (1, 2, 4, 8, 16, 32, 64)),
        ((1, 1792.0),),
        ((512 * 512, tuple((count, max(least_s, count * image_s)) for count in (1, 2, 4, 8))),),
        copied_bytes_per_s, _groups(_SD15_GROUPS), measured=True,
    )  # fmt: skip


def sdxl_1024(teraflops: float = 390.0, copied_bytes_per_s: float = 55e9) -> Figures:
    """SDXL at 1024x1024 in fp16, its VAE in fp32."""
    row_s, image_s = 5.98 / teraflops, 10.0 / teraflops
    return Figures(
        SDXL, 50 * MIB, 64 * MIB,
        ((1, 168.0 * MIB),),
        tuple((rows, rows * row_s) for rows in (1, 2, 4, 8, 16)),
        ((1, 3584.0),),
        ((1024 * 1024, tuple((count, count * image_s) for count in (1, 2, 4))),),
        copied_bytes_per_s, _groups(_SDXL_GROUPS), measured=True,
    )  # fmt: skip


def _groups(parts: tuple[tuple[int, int], ...]) -> Groups:
    return tuple((size * MIB, share / 1000) for size, share in parts)
