"""Real out-of-memory errors on a GPU: another process holds most of it, and no image is lost.

python -m tests.bench.refused MODELS     MODELS/sd15: made by full_size.py
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.record import Asked, Record, command, gpu_name
from tests.bench.tolerance import compare
from tests.commands import samples, worker_events

IMAGES = 32
STEPS = 4
WHOLE = {"placement": "resident", "micro_batch": 32, "decode_chunk": 32, "tile_px": 0}
# What is left free, in GiB, and the policy that is too large for it there.
CASES = {
    "decode": (10.0, WHOLE),
    "denoise": (5.0, WHOLE | {"decode_chunk": 1}),
    "load": (1.8, WHOLE | {"micro_batch": 1, "decode_chunk": 1}),
}
_HOLD = """
import sys, torch
for line in sys.stdin:
    held = None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    left = int(min(free, float(line) * 2**30))
    held = torch.empty(free - left, dtype=torch.uint8, device="cuda")
    print(flush=True)
"""


class Ballast(Asked):
    """A process that holds the GPU's memory but for what `leave` says."""

    def __init__(self):
        super().__init__("-c", _HOLD)

    def leave(self, free_gib):
        """Hold all but so many GiB; infinity: nothing but what CUDA takes for this process."""
        self.ask(free_gib)


def made(folder, policy, run_dir):
    """{name: pixels}, and the events of the worker that tell of refused memory."""
    command(
        "batchgen", "job=mars_batch", f"model.path={folder}", "model.guidance=7.5", f"run_dir={run_dir}",
        f"job.limit={IMAGES}", f"job.steps={STEPS}", "job.width=512", "job.height=512",
        *(f"memory.policy.{field}={value}" for field, value in policy.items()), gpu=True,
    )  # fmt: skip
    files = {name: data for name, data in samples(run_dir).items() if name.endswith(".png")}
    pictures = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in files.items()}
    return pictures, [event for event in worker_events(run_dir) if event["event"] == "out_of_memory"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    folder = parser.parse_args().models / "sd15"
    record = Record("refused", gpu_name())
    for stage, (free_gib, policy) in CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            expected, none = made(folder, policy, Path(scratch) / "undisturbed")
            assert not none, "memory was short without the other process"
            with Ballast() as ballast:
                ballast.leave(free_gib)
                pictures, events = made(folder, policy, Path(scratch) / "short")
        stages = [event["stage"] for event in events]
        used = events[-1]["next"] if events else None
        found = compare(expected, pictures)
        record.add(stage=stage, free_gib=free_gib, policy=policy, refused_at=stages, used=used, **found)
        record.bar(f"{stage}: images lost", IMAGES - len(pictures), below=1)
        record.bar(f"{stage}: refusals", len(events), at_least=1)
        record.bar(f"{stage}: worst PSNR in dB (null: all identical)", found["worst_psnr_db"])
    record.write()


if __name__ == "__main__":
    main()
