"""What others do on this GPU: plain diffusers as guides show it, and a good script by hand. No batchgen in them.

python -m tests.bench.anchors MODELS [--only NAME ...] [--small]     MODELS/sd15, MODELS/sdxl: made by full_size.py

Each row is kept in results/anchors.rows.jsonl as soon as it is measured, and is not measured twice on one GPU for one
commit. --small: the same code with few steps and small images, to try it without a GPU.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler

from batchgen.bench import compiled, guide
from batchgen.bench.task import Task
from batchgen.bench.timing import timed
from tests.bench.record import RESULTS, Record, commit, device, gpu_name

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCHES = {  # rows of a batch, images a side, steps, guidance
    "sd15": (32, 512, 50, 7.5),
    "sdxl": (8, 1024, 20, 5.0),
}
SCHEDULERS = {"sd15": DDIMScheduler, "sdxl": EulerDiscreteScheduler}
_BARE = """
import sys, time
start = time.perf_counter()
import torch
from diffusers import StableDiffusionPipeline
imported = time.perf_counter()
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float16).to(sys.argv[2])
loaded = time.perf_counter()
ended = []
pipe("a photo of a cat", num_inference_steps=2, output_type="latent",
     callback_on_step_end=lambda *given: (ended.append(time.perf_counter()), given[-1])[1])
print(imported - start, loaded - start, ended[0] - start)
"""


def pipeline(folder, scheduler, dtype):
    """diffusers' pipeline on the device, without its bar."""
    kind = torch.float16 if CUDA and dtype == "half" else torch.float32
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=kind)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(DEVICE)


def ceiling(_, small):
    """TFLOP/s of a large matrix product, random numbers, bf16."""
    size = 512 if small else 8192
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    taken = timed(lambda: [left @ right for _ in range(10)], 5)
    return {"tflop_per_s": round(10 * 2 * size**3 / taken.seconds / 1e12, 1)}


def bare_start(models, _):
    """Seconds of a script that imports, loads and makes one step: files in the host's cache, the second of two runs."""
    arguments = [sys.executable, "-c", _BARE, str(models / "sd15"), DEVICE]
    for _ in range(2):
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    imported, loaded, stepped = (round(float(one), 2) for one in said.split())
    return {"imported_s": imported, "loaded_s": loaded, "first_step_s": stepped}


def one_image(models, small, upto):
    """Seconds of one image from prompt to picture, the guide's savings switched on up to this one."""
    edge, steps = (64, 2) if small else (512, 50)
    taken = guide.one_image(partial(pipeline, models / "sd15", DDIMScheduler), Task(edge, edge, steps, 7.5), upto)
    return {"seconds": round(taken.seconds, 3), "first_s": round(taken.first_s, 2)}


def by_guide(models, small, kind):
    """Images a second as the guide makes a batch."""
    return _batch(guide.batch, models, small, kind, 2)


def by_hand(models, small, kind):
    """Images a second of a fair script with compiled code."""
    return _batch(compiled.batch, models, small, kind, 3)


def _batch(make, models, small, kind, batches):
    rows, edge, steps, scale = (2, 64, 2, 5.0) if small else BATCHES[kind]
    task = Task(edge, edge, steps, scale, rows, 1 if small else batches)
    taken = make(partial(pipeline, models / kind, SCHEDULERS[kind]), task)
    rate = round(rows / taken.seconds, 3)
    return {"images_per_s": rate, "batch_s": round(taken.seconds, 3), "first_s": round(taken.first_s, 1)}


ANCHORS: dict[str, Callable[..., dict]] = {
    "ceiling": ceiling,
    "bare_start": bare_start,
    **{f"one_image_{name}": partial(one_image, upto=name) for name in guide.SAVINGS},
    **{f"{kind}_{by.__name__}": partial(by, kind=kind) for kind in BATCHES for by in (by_guide, by_hand)},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="*", choices=ANCHORS, default=list(ANCHORS))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    name = "anchors_small" if options.small else "anchors"
    kept = RESULTS / f"{name}.rows.jsonl"
    here = {"device": gpu_name() or device(), "commit": commit()}
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for anchor in options.only:
        if any(row["anchor"] == anchor and here.items() <= row.items() for row in rows):
            continue
        row = {"anchor": anchor, **ANCHORS[anchor](options.models, options.small), **here}
        if CUDA:
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        rows.append(row)
        with kept.open("a") as file:
            print(json.dumps(row), file=file)
    record = Record(name, gpu_name())
    for row in rows:
        record.add(**row)
    record.write()


if __name__ == "__main__":
    main()
