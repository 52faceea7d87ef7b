"""What others do on this GPU: plain diffusers as guides show it, and a good script by hand. No batchgen in them.

python -m tests.bench.anchors MODELS [--only NAME ...] [--small]     MODELS/sd15, MODELS/sdxl: made by full_size.py

Each row is kept in results/anchors.rows.jsonl as soon as it is measured, and is not measured twice on one GPU for one
commit. --small: the same code with few steps and small images, to try it without a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor

from batchgen.pipeline.levers.attention import attention_kernel
from batchgen.pipeline.levers.traced import TracedForward
from tests.bench.record import RESULTS, Record, commit, device, gpu_name

PROMPT = "a photo of an astronaut riding a horse on mars, number {}"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
ROUNDS = 3
# What the guide does to a pipeline, one after the other: its table's lines.
ONE_IMAGE = ("original", "fp16", "channels_last", "traced", "memory_efficient")
BATCHES = {  # rows of a batch, images a side, steps, guidance
    "sd15": (32, 512, 50, 7.5),
    "sdxl": (8, 1024, 20, 5.0),
}
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


def timed(work, rounds=ROUNDS):
    """The median of the seconds of `work`, after one call that is not counted; the first call's seconds beside it."""
    taken_s = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        if CUDA:
            torch.cuda.synchronize()
        taken_s.append(time.perf_counter() - start)
    return sorted(taken_s[1:])[rounds // 2], taken_s[0]


def pipeline(folder, dtype=torch.float16, scheduler=None):
    """diffusers' pipeline on the device, without its bar."""
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype if CUDA else torch.float32)
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(DEVICE)


def ceiling(_, small):
    """TFLOP/s of a large matrix product, random numbers, bf16."""
    size = 512 if small else 8192
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    seconds, _ = timed(lambda: [left @ right for _ in range(10)], 5)
    return {"tflop_per_s": round(10 * 2 * size**3 / seconds / 1e12, 1)}


def bare_start(models, _):
    """Seconds of a script that imports, loads and makes one step: files in the host's cache, the second of two runs."""
    arguments = [sys.executable, "-c", _BARE, str(models / "sd15"), DEVICE]
    for _ in range(2):
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    imported, loaded, stepped = (round(float(one), 2) for one in said.split())
    return {"imported_s": imported, "loaded_s": loaded, "first_step_s": stepped}


def one_image(models, small, upto):
    """Seconds of one image from prompt to picture, the guide's savings switched on up to this one."""
    done = ONE_IMAGE[: ONE_IMAGE.index(upto) + 1]
    pipe = pipeline(models / "sd15", torch.float16 if "fp16" in done else torch.float32, DDIMScheduler)
    if "memory_efficient" not in done:
        pipe.unet.set_attn_processor(AttnProcessor())
    if "channels_last" in done:
        pipe.unet.to(memory_format=torch.channels_last)
    if "traced" in done:
        pipe.unet.forward = TracedForward(pipe.unet)
    edge, steps = (64, 2) if small else (512, 50)
    with attention_kernel("efficient" if "memory_efficient" in done and CUDA else "sdpa"):
        work = partial(pipe, PROMPT.format(0), height=edge, width=edge, num_inference_steps=steps)
        seconds, first_s = timed(work)
    return {"seconds": round(seconds, 3), "first_s": round(first_s, 2)}


def by_guide(models, small, kind):
    """Images a second as the guide makes a batch: fp16, VAE slicing, PNGs one after the other."""
    rows, edge, steps, guidance = _sizes(kind, small)
    pipe = pipeline(models / kind, scheduler=DDIMScheduler if kind == "sd15" else EulerDiscreteScheduler)
    pipe.vae.enable_slicing()
    prompts = [PROMPT.format(place) for place in range(rows)]
    with tempfile.TemporaryDirectory() as folder:

        def work():
            images = pipe(prompts, height=edge, width=edge, num_inference_steps=steps, guidance_scale=guidance).images
            for place, image in enumerate(images):
                image.save(f"{folder}/{place}.png")

        seconds, first_s = timed(work, 1 if small else 2)
    return _rate(rows, seconds, first_s)


def by_hand(models, small, kind):
    """Images a second of a fair script: compiled UNet and VAE, channels_last, decoding eight at once, PNGs by threads.

    What is written is written while the next batch is made, so that a call takes the steady time of a batch.
    """
    rows, edge, steps, guidance = _sizes(kind, small)
    pipe = pipeline(models / kind, scheduler=DDIMScheduler if kind == "sd15" else EulerDiscreteScheduler)
    if pipe.vae.config.force_upcast and kind == "sdxl":
        pipe.vae.to(torch.bfloat16 if CUDA else torch.float32)  # no overflow, and no fp32
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.unet = torch.compile(pipe.unet)
    decode = torch.compile(pipe.vae.decode)
    prompts = [PROMPT.format(place) for place in range(rows)]
    pool = ThreadPoolExecutor(8)
    pending: list[Future[None]] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():

        def work():
            latents = pipe(
                prompts, height=edge, width=edge, num_inference_steps=steps, guidance_scale=guidance,
                output_type="latent",
            ).images  # fmt: skip
            made = []
            for start in range(0, rows, 8):
                piece = latents[start : start + 8].to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
                pixels = decode(piece, return_dict=False)[0]
                made.append((pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8))
            arrays = torch.cat(made).permute(0, 2, 3, 1).cpu().numpy()
            for one in pending:
                one.result()
            pending[:] = [pool.submit(_save, array, f"{folder}/{place}.png") for place, array in enumerate(arrays)]

        seconds, first_s = timed(work, 1 if small else 3)
        for one in pending:
            one.result()
    return _rate(rows, seconds, first_s)


def _save(array, path):
    from PIL import Image

    Image.fromarray(array).save(path, compress_level=1, compress_type=3)


def _sizes(kind, small):
    return (2, 64, 2, 5.0) if small else BATCHES[kind]


def _rate(rows, seconds, first_s):
    return {"images_per_s": round(rows / seconds, 3), "batch_s": round(seconds, 3), "first_s": round(first_s, 1)}


ANCHORS: dict[str, Callable[..., dict]] = {
    "ceiling": ceiling,
    "bare_start": bare_start,
    **{f"one_image_{name}": partial(one_image, upto=name) for name in ONE_IMAGE},
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
