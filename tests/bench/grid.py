"""One model at one size: what denoising takes by placement and micro-batch, and decoding by chunk and tiles.

python -m tests.bench.grid FOLDER WIDTH HEIGHT ROWS < PLACEMENTS     ladder.py composes policies of what it prints

Placements are read a line each; of each come JSON lines and an empty one. Decoding is measured with the VAE alone on
the device, and once with all weights in place: they add their bytes, and change no seconds.
"""

import argparse
import gc
import json
import math
import statistics
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from batchgen.machine.meters import Stopwatch
from batchgen.memory.choose import MICRO_BATCHES
from batchgen.memory.costs import Task
from batchgen.memory.figures import LATENT_PX
from batchgen.models.find import ModelFiles
from batchgen.padding import PADDED_SIZES
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.policy import STREAM_BUFFERS, Policy
from batchgen.types import Prompt

SHORT_S = 0.1  # of a step or a decode; such are measured more often, since the host may be busy
SHORT_TIMES, LONG_TIMES = 12, 3
IN_PLACE_TILE_PX = 256  # small enough for each size
MOST_PIXELS = 64 * 1024 * 1024  # at once; beyond, a decode takes hundreds of GiB


class Grid:
    """Measures one engine, and prints."""

    def __init__(self, folder, width, height, rows):
        self._task = Task(width, height, rows, steps=1, guided=True)
        self._micro_batches, self._chunks = (
            [size for size in sizes if size < 2 * rows] for sizes in (MICRO_BATCHES, PADDED_SIZES)
        )
        # As the job has it: one pass of the UNet a step
        self._engine = DiffusersEngine(ModelFiles(folder), "ddim", "auto")

    def measure(self, placement):
        """Print what denoising takes by this placement, and decoding by those that this module's head names."""
        self._policy = Policy(1, 1, 0, placement, self._engine.dtype, 4, channels_last=True)
        self._denoise()
        if placement == "model_offload":
            self._decode((0, *self._task.tiles_px), self._chunks)
        elif placement == "resident":
            self._decode((IN_PLACE_TILE_PX,), (1,))

    def _denoise(self):
        """By micro-batch, and in two passes for one row."""
        self._engine.prepare(self._policy)
        texts = self._engine.encode(self._prompts(1, 1))
        # The first passes bring the weights in and load kernels, and of streaming learn an order.
        *_, step_s = self._steps_s(texts, self._policy, 3)
        for buffers in STREAM_BUFFERS if self._policy.placement == "weight_streaming" else STREAM_BUFFERS[:1]:
            self._policy = self._with(stream_buffers=buffers)
            self._grow(texts, step_s)

    def _grow(self, texts, step_s):
        for micro_batch, split in [(1, True), *((size, False) for size in self._micro_batches)]:
            policy = self._with(micro_batch=micro_batch, guidance_split=split)
            steps = 1 + (SHORT_TIMES if step_s < SHORT_S else LONG_TIMES)
            taken = self._measured(policy, lambda p=policy, s=steps: self._steps_s(texts, p, s))
            if taken is None:
                break
            step_s, peak_bytes = taken
            self._say("denoise", policy, step_s, peak_bytes)

    def _steps_s(self, texts, policy, steps):
        # From one call of the UNet to the next
        starts = []
        hook = self._engine._pipe.unet.register_forward_pre_hook(lambda *_: starts.append(_now()))
        try:
            self._engine.denoise(texts, self._prompts(policy.micro_batch, steps), policy)
        finally:
            hook.remove()
        torch.cuda.synchronize()
        return [one.elapsed_time(other) / 1000 for one, other in pairwise(starts)]

    def _decode(self, tiles_px, chunks):
        """By chunk and tile, of latents that are noise."""
        channels = self._engine._pipe.unet.config.in_channels
        height, width = self._task.height // LATENT_PX, self._task.width // LATENT_PX
        latent = torch.randn(channels, height, width, device="cuda", dtype=torch.float16)
        for tile_px in tiles_px:
            for chunk in chunks:
                if chunk * math.prod(self._task.piece(tile_px)) > MOST_PIXELS:
                    continue
                policy = self._with(decode_chunk=chunk, tile_px=tile_px)
                taken = self._measured(policy, lambda p=policy: self._decodes_s(latent, p))
                if taken is not None:
                    call_s, peak_bytes = taken
                    self._say("decode", policy, call_s / chunk, peak_bytes)

    def _decodes_s(self, latent, policy):
        found: list[float] = []
        while len(found) < LONG_TIMES or (len(found) < SHORT_TIMES and found[-1] < SHORT_S):
            watch = Stopwatch()
            with watch:
                self._engine.decode([latent] * policy.decode_chunk, policy)
            found.append(watch.seconds())
        return found

    def _prompts(self, count, steps):
        # So many that differ in their seeds
        text, size = "a photo of an astronaut riding a horse on mars", (self._task.width, self._task.height)
        return [Prompt(str(place), text, "", place, *size, steps, 7.5, "grid", 1) for place in range(count)]

    def _with(self, **changes):
        return replace(self._policy, **changes)

    def _measured(self, policy, work):
        # The median of the seconds that `work` gives, and the peak in bytes; None when memory is refused
        try:
            self._engine.prepare(policy)
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            return statistics.median(work()), torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            pass
        self._engine.recover()
        return None

    def _say(self, stage, policy, seconds, peak_bytes):
        fields = ("placement", "stream_buffers", "micro_batch", "guidance_split", "decode_chunk", "tile_px")
        own = {field: getattr(policy, field) for field in fields}
        print(json.dumps({"stage": stage, **own, "seconds": seconds, "peak_bytes": peak_bytes}), flush=True)


def _now():
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("rows", type=int)
    options = parser.parse_args()
    grid = Grid(options.folder, options.width, options.height, options.rows)
    for line in sys.stdin:
        grid.measure(line.strip())
        print(flush=True)


if __name__ == "__main__":
    main()
