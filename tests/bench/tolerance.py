"""How much images change with the memory policy: the same prompts and seeds under other policies, pixel by pixel.

Each policy differs from the reference in one field, the last one in all. The policy is frozen for a run, so
this is what two runs may differ by, not two workers of one run.

python -m tests.bench.tolerance [--gpu] [--at-once N]
"""

import argparse
import io
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batchgen.placements import PLACEMENTS
from tests.bench.record import Record, command, gpu_name
from tests.commands import samples

REFERENCE: dict[str, Any] = {
    "micro_batch": 16, "decode_chunk": 4, "tile_px": 0, "threads": 2, "placement": "resident", "guidance_split": False,
    "channels_last": False, "traced": False, "attention": "sdpa", "dtype": "fp32",
}  # fmt: skip
_GROUPS = {"channels_last": "speed", "traced": "speed", "attention": "speed", "dtype": "model"}
CHANGES: list[dict[str, Any]] = [
    {},  # the same once more: what a run differs by from itself
    *({"placement": placement} for placement in PLACEMENTS if placement != "resident"),
    {"guidance_split": True},
    {"channels_last": True},
    {"traced": True},
    {"attention": "plain"},
    {"tile_px": 96},
    {"micro_batch": 8},
    {"micro_batch": 4},
    {"micro_batch": 2},
    {"micro_batch": 1},
    {"decode_chunk": 1},
    {"tile_px": 64},
    {"threads": 1},
    {"dtype": "bf16"},
    {"dtype": "fp16"},
    {"micro_batch": 1, "decode_chunk": 1, "tile_px": 64, "threads": 1},
]
SIZE_PX = 128
STEPS = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--gpu", action="store_true", help="on the GPU, against its resident fp32")
    parser.add_argument("--at-once", type=int, default=1, help="so many runs beside each other")
    options = parser.parse_args()
    record = Record("tolerance_gpu" if options.gpu else "tolerance", gpu_name() if options.gpu else None)
    with tempfile.TemporaryDirectory() as scratch:
        reference = _images(Path(scratch) / "reference", options, REFERENCE)
        with ThreadPoolExecutor(options.at_once) as runs:
            made = runs.map(
                lambda place: _images(Path(scratch) / str(place), options, REFERENCE | CHANGES[place]),
                range(len(CHANGES)),
            )
            for change, images in zip(CHANGES, made, strict=True):
                found = compare(reference, images)
                record.add(changed=change, policy=REFERENCE | change, **found)
                name = ", ".join(f"{field} {value}" for field, value in change.items()) or "the same policy"
                record.bar(f"worst PSNR in dB, {name} (null: all identical)", found["worst_psnr_db"])
    record.write()


def _images(run_dir, options, policy):
    """{name: pixels} of a run under a policy."""
    command(
        "batchgen", "job=mars_batch", f"run_dir={run_dir}", f"job.limit={options.images}", f"job.steps={STEPS}",
        f"job.width={SIZE_PX}", f"job.height={SIZE_PX}", "output=png",
        *(f"{_GROUPS.get(field, 'memory.policy')}.{field}={value}" for field, value in policy.items()),
        gpu=options.gpu,
    )  # fmt: skip
    files = samples(run_dir)
    for name, data in files.items():
        assert not name.endswith(".json") or json.loads(data)["policy"].items() >= policy.items()
    made = arrays(files)
    assert len(made) == options.images
    return made


def arrays(files):
    """{name: (height, width, 3) in 0..255} of the images of a run's samples."""
    pngs = {name: data for name, data in files.items() if name.endswith(".png")}
    return {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in pngs.items()}


def compare(reference, images):
    """How images differ from those of the reference; a PSNR is null where no image differs."""
    assert images.keys() == reference.keys()
    differences = [np.abs(images[name].astype(int) - reference[name].astype(int)) for name in sorted(images)]
    # Identical images, whose PSNR is infinite, are counted on their own.
    psnrs_db = [10 * np.log10(255.0**2 / np.mean(one.astype(float) ** 2)) for one in differences if one.any()]
    values = np.stack(differences)
    return {
        "images": len(differences),
        "identical": len(differences) - len(psnrs_db),
        "median_psnr_db_of_different": round(float(np.median(psnrs_db)), 2) if psnrs_db else None,
        "worst_psnr_db": round(float(min(psnrs_db)), 2) if psnrs_db else None,
        "max_difference_of_255": int(values.max()),
        "share_of_values_that_differ": round(float((values > 0).mean()), 6),
    }


if __name__ == "__main__":
    main()
