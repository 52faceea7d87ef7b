"""Images by a plain script for `accelerate launch`: each process makes its part of the prompts and writes one tar.

accelerate launch tests/bench/peer_accelerate.py MODEL PROMPTS DIR STEPS GUIDANCE BATCH
"""

import os
import sys

import torch
import webdataset
from accelerate import PartialState
from diffusers import DDIMScheduler, StableDiffusionPipeline


def main():
    model, prompts, to, steps, guidance, batch = sys.argv[1:]
    state = PartialState(cpu=True)
    torch.set_num_threads(os.cpu_count() or 1)
    pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    with open(prompts) as file:
        rows = list(enumerate(line.rstrip("\n") for line in file))
    os.makedirs(to, exist_ok=True)
    tar = f"{to}/{state.process_index:06d}.tar"
    with state.split_between_processes(rows) as mine, webdataset.TarWriter(tar) as writer:
        for start in range(0, len(mine), int(batch)):
            some = mine[start : start + int(batch)]
            texts = [text for _, text in some]
            images = pipe(texts, num_inference_steps=int(steps), guidance_scale=float(guidance)).images
            for (place, text), image in zip(some, images, strict=True):
                writer.write({"__key__": f"{place:09d}", "png": image, "txt": text})


if __name__ == "__main__":
    main()
