"""Whether tiles show: steps between neighbouring pixels at tiles' borders over those elsewhere, against a whole decode.

python -m tests.bench.seams     the carried model, larger than it was trained for, on the CPU
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.bench.pictures import pixels
from tests.bench.record import Record, command
from tests.commands import samples

EDGE_PX = 768
TILES_PX = (128, 256, 512)
OVERLAP = 0.25  # of a tile, as diffusers' tiling has it
IMAGES = 8
STEPS = 10
GOAL = 1.1


def steps_between_pixels(images):
    """|difference| of neighbours across, then down: two arrays of (images, lines) of means over lines."""
    across = np.abs(np.diff(images, axis=3)).mean(axis=(1, 2))
    down = np.abs(np.diff(images, axis=2)).mean(axis=(1, 3))
    return across, down


def border_lines(tile_px):
    """The lines between pixels at which a tile begins, or its blending with the one before it ends."""
    stride, blended = int(tile_px * (1 - OVERLAP)), int(tile_px * OVERLAP)
    starts = range(stride, EDGE_PX, stride)
    return sorted({line - 1 for start in starts for line in (start, start + blended) if line < EDGE_PX})


def border_ratio(images, lines):
    """The mean step at those lines over that at all others."""
    at_borders = np.zeros(EDGE_PX - 1, dtype=bool)
    at_borders[lines] = True
    parts = [(steps[:, at_borders].mean(), steps[:, ~at_borders].mean()) for steps in steps_between_pixels(images)]
    return sum(one for one, _ in parts) / sum(other for _, other in parts)


def made(tile_px):
    """(images, 3, edge, edge) of the command."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        command(
            "batchgen", "job=mars_batch", f"run_dir={run_dir}", f"job.limit={IMAGES}", f"job.steps={STEPS}",
            f"job.width={EDGE_PX}", f"job.height={EDGE_PX}", f"memory.policy.tile_px={tile_px}",
            "memory.policy.micro_batch=2", "memory.policy.decode_chunk=1",
        )  # fmt: skip
        files = samples(run_dir)
        return np.stack([pixels(files[name]).numpy() for name in sorted(files) if name.endswith(".png")])


def main():
    record = Record("seams")
    whole = made(0)
    for tile_px in TILES_PX:
        tiled, lines = made(tile_px), border_lines(tile_px)
        of_tiled, of_whole = border_ratio(tiled, lines), border_ratio(whole, lines)
        worst = 20 * np.log10(2 / np.sqrt(((tiled - whole) ** 2).mean(axis=(1, 2, 3)))).min()
        record.add(
            tile_px=tile_px, images=IMAGES, edge_px=EDGE_PX, ratio_tiled=round(float(of_tiled), 4),
            ratio_whole=round(float(of_whole), 4), worst_psnr_db=round(float(worst), 2),
        )  # fmt: skip
        what = f"steps at the borders of tiles of {tile_px} px over those elsewhere, against a whole decode"
        record.bar(what, round(float(of_tiled / of_whole), 4), below=GOAL)
    record.write()


if __name__ == "__main__":
    main()
