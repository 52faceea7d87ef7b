"""One model at one size: what denoising takes by placement and micro-batch, and decoding by chunk and tiles.

python -m tests.bench.grid FOLDER WIDTH HEIGHT ROWS < PLACEMENTS     ladder.py composes policies of what it prints

Placements are read a line each; of each come JSON lines and an empty one. Decoding is measured with the VAE alone on
the device, and once with all weights in place: they add their bytes, and change no seconds.
"""

import argparse
import gc
import json
import statistics
import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from batchgen.memory.choose import MICRO_BATCHES
from batchgen.memory.policy import PADDED_SIZES, STREAM_BUFFERS, TILES_PX
from batchgen.pipeline.engine import DiffusersEngine
from batchgen.types import Policy, Prompt

SHORT_S = 0.1  # of a step or a decode; such are measured more often, since the host may be busy
SHORT_TIMES, LONG_TIMES = 12, 3
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
        with self._step_starts() as starts:
            for _ in range(2):  # brings the weights in and loads kernels; twice, since streaming learns an order first
                self._engine.denoise(texts, prompts(1, *self._size, 1), self._policy)
            starts.append(_now())
        torch.cuda.synchronize()
        for buffers in STREAM_BUFFERS if self._policy.placement == "weight_streaming" else STREAM_BUFFERS[:1]:
            self._policy = self._with(stream_buffers=buffers)
            self._grow(texts, _median_s(starts[-2:]))

    def _grow(self, texts, step_s):
        for micro_batch, split in [(1, True), *((size, False) for size in self._micro_batches)]:
            policy = self._with(micro_batch=micro_batch, guidance_split=split)
            rows = prompts(micro_batch, *self._size, 1 + (SHORT_TIMES if step_s < SHORT_S else LONG_TIMES))
            with self._step_starts() as starts:
                peak_bytes = self._peak(policy, lambda r=rows, p=policy: self._engine.denoise(texts, r, p))
            if peak_bytes is None:
                break
            step_s = _median_s(starts)
            self._say("denoise", policy, step_s, peak_bytes)

    @contextmanager
    def _step_starts(self):
        starts = []
        hook = self._engine._pipe.unet.register_forward_pre_hook(lambda *_: starts.append(_now()))
        try:
            yield starts
        finally:
            hook.remove()

    def _decode(self, tiles_px, chunks):
        """By chunk and tile, of latents that are noise."""
        channels = self._engine._pipe.unet.config.in_channels
        width, height = self._size
        latent = torch.randn(channels, height // 8, width // 8, device="cuda", dtype=torch.float16)
        for tile_px in tiles_px:
            for chunk in chunks:
                if chunk * (tile_px**2 or width * height) > MOST_PIXELS or tile_px >= max(self._size):
                    continue
                starts: list[torch.cuda.Event] = []
                policy = self._with(decode_chunk=chunk, tile_px=tile_px)
                peak_bytes = self._peak(policy, lambda p=policy, s=starts: self._decode_often(latent, p, s))
                if peak_bytes is not None:
                    self._say("decode", policy, _median_s(starts) / chunk, peak_bytes)

    def _decode_often(self, latent, policy, starts):
        starts.append(_now())
        for times in range(1, SHORT_TIMES):
            self._engine.decode([latent] * policy.decode_chunk, policy)
            starts.append(_now())
            starts[-1].synchronize()
            if times >= LONG_TIMES and starts[0].elapsed_time(starts[-1]) / 1000 > SHORT_S * times:
                break

    def _with(self, **changes):
        return replace(self._policy, **changes)

    def _peak(self, policy, work):
        # Bytes, or None when memory is refused
        try:
            self._engine.prepare(policy)
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            work()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated()
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


def _median_s(starts):
    return statistics.median(one.elapsed_time(other) for one, other in pairwise(starts)) / 1000


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
