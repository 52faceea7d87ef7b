"""What plain diffusers makes of a model that does not fit: model offload, or group offload with streams. No batchgen.

python -m tests.bench.offloads FOLDER model|group|none [--edge 1024] [--steps 4] [--guidance 3.5]

families.py runs it beside the same other process as the command. The largest batch of 4, 2 and 1 that fits; its rate
is images times steps for each second of denoising. The last line is JSON. On a CPU group offload has no streams, and
there is no model offload.
"""

import argparse
import gc
import json
import os
import time
from pathlib import Path

import psutil
import torch
from diffusers import DiffusionPipeline

BATCHES = (4, 2, 1)
PROMPT = "a photo of an astronaut riding horse {}"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def loaded(folder, how):
    """diffusers' pipeline, with the weights where its own functions put them."""
    dtype = torch.bfloat16 if CUDA else torch.float32
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.enable_slicing()
    if how == "model":
        pipe.enable_model_cpu_offload(device=DEVICE)
    elif how == "group":
        pipe.enable_group_offload(
            onload_device=DEVICE, offload_device=torch.device("cpu"), offload_type="leaf_level", use_stream=CUDA,
            non_blocking=CUDA, record_stream=CUDA,
        )  # fmt: skip
    else:
        pipe.to(DEVICE)
    return pipe


def made(pipe, batch, edge, steps, guidance):
    """Seconds of denoising and of the whole call, for so many images."""
    ends: list[float] = []

    def begun(*_):
        if not ends:
            ends.append(_now())

    def ended(pipe, step, timestep, given):
        ends.append(_now())
        return given

    hook = pipe.transformer.register_forward_pre_hook(begun)
    start = _now()
    try:
        pipe(
            [PROMPT.format(place) for place in range(batch)], height=edge, width=edge, num_inference_steps=steps,
            guidance_scale=guidance, callback_on_step_end=ended,
        )  # fmt: skip
    finally:
        hook.remove()
    return ends[-1] - ends[0], _now() - start


def largest(pipe, how, edge, steps, guidance):
    """The row of the largest batch that fits; what refused larger ones is in it."""
    refused: dict[int, str] = {}
    for batch in BATCHES:
        try:
            made(pipe, batch, edge, 2, guidance)  # loads kernels, and learns the order of layers
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            denoise_s, whole_s = made(pipe, batch, edge, steps, guidance)
        except Exception as error:  # a row, whatever it is
            refused[batch] = f"{type(error).__name__}: {error}"[:200]
        else:
            return {
                "batch": batch, "refused": refused, "rate": batch * steps / denoise_s, "denoise_s": denoise_s,
                "images_per_s": batch / whole_s, "whole_s": whole_s,
            }  # fmt: skip
        _freed(pipe, how)
    return {"batch": 0, "refused": refused}


def _freed(pipe, how):
    if how == "model":
        pipe.maybe_free_model_hooks()  # a refused call leaves weights on the device
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def _now():
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("how", choices=("model", "group", "none"))
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance", type=float, default=3.5)
    options = parser.parse_args()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # as batchgen's workers have it
    start = time.perf_counter()
    try:
        pipe = loaded(options.folder, options.how)
    except Exception as error:  # a row too
        print(json.dumps({"batch": 0, "refused": {"load": f"{type(error).__name__}: {error}"[:200]}}))
        return
    row = {"load_s": time.perf_counter() - start}
    row |= largest(pipe, options.how, options.edge, options.steps, options.guidance)
    row["host_rss_bytes"] = psutil.Process().memory_info().rss
    if CUDA:
        row["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        row["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(row))


if __name__ == "__main__":
    main()
