"""One model at one size: what denoising takes by placement and micro-batch, and decoding by chunk and tiles.

python -m tests.bench.grid FOLDER WIDTH HEIGHT ROWS < PLACEMENTS     ladder.py composes policies of what it prints

Placements are read a line each; of each come JSON lines and an empty one. Decoding is measured with the VAE alone on
the device, and once with all weights in place: they add their bytes, and change no seconds.
"""

import argparse
import gc
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from batchgen.memory.choose import MICRO_BATCHES
from batchgen.memory.policy import PADDED_SIZES, STREAM_BUFFERS, TILES_PX
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.types import Policy, Prompt

SHORT_S = 0.5  # what takes less is measured over more steps, and twice: the host may be busy
STEPS, LONG_STEPS = (1, 3), (1, 2)  # a step's seconds are by the difference
IN_PLACE_TILE_PX = 256  # small enough for each size
MOST_PIXELS = 64 * 1024 * 1024  # at once; beyond, a decode takes hundreds of GiB


def prompts(count, width, height, steps):
    """So many that differ in their seeds."""
    text = "a photo of an astronaut riding a horse on mars"
    return [Prompt(str(place), text, "", place, width, height, steps, 7.5, "grid", 1) for place in range(count)]


class Grid:
    """Measures one engine, and prints."""

    def __init__(self, folder, width, height, rows):
        self._size = (width, height)
        self._micro_batches, self._chunks = (
            [size for size in sizes if size < 2 * rows] for sizes in (MICRO_BATCHES, PADDED_SIZES)
        )
        self._engine = DiffusersEngine(folder, "ddim", "auto")  # as the job has it: one pass of the UNet a step

    def measure(self, placement):
        """Print what denoising takes by this placement, and decoding by those that this module's head names."""
        self._policy = Policy(1, 1, 0, placement, self._engine.dtype, 4, channels_last=True)
        self._denoise()
        if placement == "model_offload":
            self._decode((0, *TILES_PX), self._chunks)
        elif placement == "resident":
            self._decode((IN_PLACE_TILE_PX,), (1,))

    def _denoise(self):
        """By micro-batch, and in two passes for one row."""
        self._engine.prepare(self._policy)
        texts = self._engine.encode(prompts(1, *self._size, 1))
        for buffers in STREAM_BUFFERS if self._policy.placement == "weight_streaming" else STREAM_BUFFERS[:1]:
            self._policy = self._with(stream_buffers=buffers)
            self._grow(texts)

    def _grow(self, texts):
        for micro_batch, split in [(1, True), *((size, False) for size in self._micro_batches)]:
            policy = self._with(micro_batch=micro_batch, guidance_split=split)
            cold = self._steps(texts, policy, 1)
            steps = STEPS if cold and cold[0] < SHORT_S else LONG_STEPS
            taken = [cold and self._steps(texts, policy, count) for count in steps]
            if None in taken:
                break
            step_s = (taken[1][0] - taken[0][0]) / (steps[1] - steps[0])
            self._say("denoise", policy, step_s, max(peak_bytes for _, peak_bytes in taken))

    def _steps(self, texts, policy, count):
        rows = prompts(policy.micro_batch, *self._size, count)
        return self._measured(policy, lambda: self._engine.denoise(texts, rows, policy))

    def _decode(self, tiles_px, chunks):
        """By chunk and tile, of latents that are noise."""
        channels = self._engine._pipe.unet.config.in_channels
        width, height = self._size
        latent = torch.randn(channels, height // 8, width // 8, device="cuda", dtype=torch.float16)
        for tile_px in tiles_px:
            for chunk in chunks:
                if chunk * (tile_px**2 or width * height) > MOST_PIXELS or tile_px >= max(self._size):
                    continue
                policy = self._with(decode_chunk=chunk, tile_px=tile_px)
                taken = [
                    self._measured(policy, lambda p=policy: self._engine.decode([latent] * p.decode_chunk, p))
                    for _ in range(2)
                ]
                if taken[1] is not None:
                    self._say("decode", policy, taken[1][0] / chunk, taken[1][1])

    def _with(self, **changes):
        return replace(self._policy, **changes)

    def _measured(self, policy, work):
        # (seconds, peak bytes), or None when memory is refused
        once = self._once(policy, work)
        return min(once, self._once(policy, work) or once) if once and once[0] < SHORT_S else once

    def _once(self, policy, work):
        try:
            self._engine.prepare(policy)
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            return time.perf_counter() - started, torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            pass
        self._engine.recover()
        return None

    def _say(self, stage, policy, seconds, peak_bytes):
        fields = ("placement", "stream_buffers", "micro_batch", "guidance_split", "decode_chunk", "tile_px")
        own = {field: getattr(policy, field) for field in fields}
        print(json.dumps({"stage": stage, **own, "seconds": seconds, "peak_bytes": peak_bytes}), flush=True)


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
