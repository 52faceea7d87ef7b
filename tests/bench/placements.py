"""Full-size models under each placement and decode chunk, through the command and out of the tar shards.

python -m tests.bench.placements MODELS [--only sd15]     MODELS/sd15 and MODELS/sdxl: made by full_size.py

One GPU. Rows that ROWS holds already are kept, so that a run that was cut off goes on.
"""

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path

from batchgen.paths import RunDir
from batchgen.placements import PLACEMENTS
from batchgen.shards.index import read_index
from tests.bench.record import RESULTS, Record, command, gpu_name
from tests.commands import memory_log

GIB = 1 << 30
IMAGES = 32
STEPS = 10
MICRO_BATCH = {"sd15": 16, "sdxl": 8}
SIZES = {"sd15": (512, 512), "sdxl": (1024, 1024)}
SEQUENTIAL_GOAL_GIB = 3


def cells():
    """What is measured: model, size, images and the fixed fields of the policy."""
    for model, placement, chunk in product(SIZES, PLACEMENTS, (1, 4, 32)):
        # 32 at once is for SD 1.5 with its weights in place: SDXL's VAE in fp32 would take 100 GiB.
        if chunk < 32 or (model, placement) == ("sd15", "resident"):
            policy = {"placement": placement, "micro_batch": MICRO_BATCH[model], "decode_chunk": chunk, "tile_px": 0}
            yield {"model": model, "size": SIZES[model], "images": IMAGES, "policy": policy}
    # The guide's: a batch of 32 in less than 3 GiB, and its landscape with tiling and without.
    least = {"placement": "sequential_offload", "micro_batch": 8, "decode_chunk": 1, "tile_px": 0}
    yield {"model": "sd15", "size": (512, 512), "images": IMAGES, "policy": least}
    for tile_px in (512, 0):
        policy = {"placement": "resident", "micro_batch": 1, "decode_chunk": 1, "tile_px": tile_px}
        yield {"model": "sd15", "size": (3840, 2224), "images": 1, "policy": policy}


def measure(cell, folder, steps):
    """The cell's row: what the command took, and what its memory log says."""
    width, height = cell["size"]
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        wall_s = command(
            "batchgen", "job=mars_batch", f"model.path={folder}", "model.guidance=7.5", f"run_dir={run_dir}",
            f"job.limit={cell['images']}", f"job.steps={steps}", f"job.width={width}", f"job.height={height}",
            *(f"memory.policy.{field}={value}" for field, value in cell["policy"].items()),
            "speed.channels_last=true", gpu=True,
        )  # fmt: skip
        index = read_index(RunDir(run_dir))
        assert index is not None
        assert index["samples"] == cell["images"], "images were lost"
        units = memory_log(run_dir)
    seconds = sum(sum(unit["stage_seconds"][stage] for stage in ("encode", "denoise", "decode")) for unit in units)
    return {
        **{"steps": steps, "seconds": round(seconds, 2), "wall_s": wall_s},
        "images_per_s": round(cell["images"] / seconds, 3),
        "denoise_s": round(sum(unit["stage_seconds"]["denoise"] for unit in units), 2),
        "decode_s": round(sum(unit["stage_seconds"]["decode"] for unit in units), 2),
        **{name: _gib(units, f"{name.removesuffix('_gib')}_bytes") for name in _FIGURES},
        "ooms": sum(unit["ooms"] for unit in units),
        "used": {field: units[-1]["policy"][field] for field in cell["policy"]},
    }


_FIGURES = ("peak_allocated_gib", "peak_reserved_gib", "predicted_peak_gib", "host_rss_gib", "host_pinned_gib")


def _gib(units, name):
    values = [unit[name] for unit in units if unit[name] is not None]
    return round(max(values) / GIB, 2) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rows", type=Path, default=RESULTS / "placements.rows.jsonl")
    options = parser.parse_args()
    record = Record("placements", gpu_name())
    options.rows.parent.mkdir(exist_ok=True)
    known = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    for cell in cells():
        cell = json.loads(json.dumps(cell))
        if options.only and cell["model"] != options.only:
            continue
        row = next((row for row in known if {name: row[name] for name in cell} == cell), None)
        if row is None:
            row = cell | measure(cell, options.models / cell["model"], options.steps)
            with options.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
        record.add(**row)
        if cell["policy"]["placement"] == "sequential_offload" and cell["policy"]["micro_batch"] == 8:
            peak = row["peak_allocated_gib"]
            if cell["model"] == "sd15" and peak is not None:
                what = "GiB allocated by a batch of 32, sequential offload, micro-batch 8"
                record.bar(what, peak, below=SEQUENTIAL_GOAL_GIB)
    record.write()


if __name__ == "__main__":
    main()
