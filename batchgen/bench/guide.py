"""The guide to diffusers' memory savings, as a user follows it by hand: its table for one image, and its batch."""

import tempfile
from functools import partial

import torch
from diffusers.models.attention_processor import AttnProcessor

from batchgen.bench.task import Load, Task
from batchgen.bench.timing import Taken, timed
from batchgen.pipeline.levers.attention import attention_kernel
from batchgen.pipeline.levers.traced import TracedForward

# What the guide does to a pipeline, one after the other: its table's lines.
SAVINGS = ("original", "fp16", "channels_last", "traced", "memory_efficient")
ROUNDS = 3


def one_image(load: Load, task: Task, upto: str, rounds: int = ROUNDS) -> Taken:
    """Make one image from prompt to picture, with the guide's savings up to this one."""
    done = SAVINGS[: SAVINGS.index(upto) + 1]
    pipe = load("half" if "fp16" in done else "fp32")
    unet = getattr(pipe, "unet", None)
    if unet is not None and "memory_efficient" not in done:
        unet.set_attn_processor(AttnProcessor())  # step by step, as all attention was then
    if "channels_last" in done:
        pipe.unet.to(memory_format=torch.channels_last)
    if "traced" in done:
        pipe.unet.forward = TracedForward(pipe.unet)
    efficient = "memory_efficient" in done and torch.cuda.is_available()
    with attention_kernel("efficient" if efficient else "sdpa"):
        return timed(partial(task.call, pipe, 1), rounds)


def batch(load: Load, task: Task) -> Taken:
    """Make a batch: in 16 bits, with VAE slicing, the PNGs one after the other."""
    pipe = load("half")
    if hasattr(pipe.vae, "enable_slicing"):
        pipe.vae.enable_slicing()
    with tempfile.TemporaryDirectory() as folder:

        def work() -> None:
            for place, image in enumerate(task.call(pipe, task.rows).images):
                image.save(f"{folder}/{place}.png")

        return timed(work, task.batches)
