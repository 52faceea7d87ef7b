"""The cells of families.py: one run of the command or of plain diffusers beside what holds the rest of the memory."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from tests.bench.full_configs import CONFIGS
from tests.bench.full_size import component
from tests.bench.record import ROOT, Asked
from tests.bench.refused import Ballast
from tests.commands import beside_progress, memory_log, worker_events

GIB = 1 << 30
STEPS, BATCH = 4, 32
LORA_RANK = 16
_PATIENCE = 2.5  # a cell that takes so many times as long as expected is cut off
_LATE_S = 15
# The files of conf/model whose settings hold, and more beside them.
PRESETS = {
    "sdxl": ("model=sdxl", "model.variant=null", "speed.channels_last=true"),
    "z_image": ("model=z_image_turbo",),
    "flux_dev": ("model=flux_dev",),
    "sd35_medium": ("model=sd35_medium",),
}
GUIDANCE = {"z_image": 0.0, "flux_dev": 3.5}
_POLICY = ("placement", "stream_buffers", "micro_batch", "guidance_split", "decode_chunk", "tile_px")
_STAGES = ("encode", "denoise", "decode")
_HOLD = """
import sys, psutil, torch
for line in sys.stdin:
    held, left = [], float(line) * 2**30
    while (over := psutil.virtual_memory().available - left) > 0 and len(held) < 4096:
        held.append(torch.ones(max(2**20, min(2**30, int(over))), dtype=torch.uint8))
    print(sum(map(len, held)))
    print(flush=True)
"""


@dataclass(frozen=True)
class Cell:
    """What is measured: a run of the command, or plain diffusers if `anchor` names how it offloads.

    `free_gib`: of the device; None: the whole card. `host_gib`: what of the host's memory another process leaves.
    `expected_s`: about how long it takes; one that takes 2.5 times as long is cut off.
    """

    model: str
    free_gib: float | None
    images: int = 64
    lora: bool = False
    host_gib: float | None = None
    anchor: str | None = None
    expected_s: float = 90.0

    @property
    def key(self):
        """What tells it from the others."""
        return {name: value for name, value in asdict(self).items() if name != "expected_s"}


class HostBallast(Asked):
    """A process that holds the host's memory but for what `leave` says."""

    def __init__(self):
        super().__init__("-c", _HOLD)

    def leave(self, free_gib):
        """Hold all but so many GiB; how many bytes that is."""
        return int(self.ask(free_gib)[0])

    def is_alive(self):
        """Whether it still holds the memory: the kernel may have ended it."""
        return self._process is not None and self._process.poll() is None


class TimeIsUpError(Exception):
    """What comes next would not end in time, or did not."""


@dataclass(frozen=True)
class Bench:
    """Where and how cells are measured. `ballast`: None on a CPU, where everything is small.

    `end_s`: when all is to be over, by the monotonic clock.
    """

    models: Path
    ballast: Ballast | None
    end_s: float
    edge: int = 1024
    batch: int = BATCH

    def measure(self, cell):
        """The row of a cell. Raises TimeIsUpError where the time is over before."""
        if self.ballast is not None:
            self.ballast.leave(math.inf if cell.free_gib is None else cell.free_gib)
        if cell.host_gib is None or self.ballast is None:
            return self._measured(cell)
        with HostBallast() as host:
            held = host.leave(cell.host_gib)
            row = self._measured(cell)
            return row | {"host_held_bytes": held, "held_to_the_end": host.is_alive()}

    def _measured(self, cell):
        memory = psutil.virtual_memory()
        row = {"host_total_bytes": memory.total, "host_available_bytes": memory.available}
        return row | (self._anchored(cell) if cell.anchor else self._commanded(cell))

    def _commanded(self, cell):
        with tempfile.TemporaryDirectory(dir=self.models) as scratch:
            run_dir = Path(scratch) / "run"
            arguments = self._arguments(cell, Path(scratch), run_dir)
            row, _ = _run(
                ["-m", "batchgen", *arguments], cell, self.end_s, {"BATCHGEN_CACHE": str(self.cache(cell.model))}
            )
            events = worker_events(run_dir) if (run_dir / "logs").is_dir() else []
            row["events"] = [
                {name: one.get(name) for name in ("event", "at", "reason", "seconds") if one.get(name) is not None}
                for one in events
            ][:40]
            row["reason"] = next((one["reason"] for one in reversed(events) if one["event"] == "chosen"), None)
            return row | (taken(run_dir, self.images(cell)) if row["code"] == 0 else {})

    def images(self, cell):
        """How many images a cell makes: as many batches, however small they are."""
        return cell.images * self.batch // BATCH

    def cache(self, model):
        """The folder of figures and fingerprints, one for all cells of a model."""
        return self.models / f"cache-{model}"

    def _arguments(self, cell, scratch, run_dir):
        prompts, places = scratch / "prompts.txt", range(self.images(cell))
        prompts.write_text("".join(f"a photo of an astronaut riding horse {place}\n" for place in places))
        folder = self.models / cell.model
        lora = [f"model.lora={lora_of(folder)}"] if cell.lora else []
        return [
            "job=mars_batch", *PRESETS[cell.model], f"model.path={folder}", f"run_dir={run_dir}",
            f"job.prompts={prompts}", f"job.steps={STEPS}", f"job.width={self.edge}", f"job.height={self.edge}",
            f"job.batch_size={self.batch}", *lora,
        ]  # fmt: skip

    def _anchored(self, cell):
        how = "none" if cell.anchor == "model" and self.ballast is None else cell.anchor
        arguments = ["-m", "tests.bench.offloads", self.models / cell.model, how]
        arguments += ["--edge", self.edge, "--steps", STEPS, "--guidance", GUIDANCE[cell.model]]
        row, said = _run(arguments, cell, self.end_s, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})
        return row | (json.loads(said.splitlines()[-1]) if row["code"] == 0 else {})


def _run(arguments, cell, end_s, environment):
    """A row with the exit code, the seconds and what was said last if it failed; and all of the output.

    The code is None where it was cut off. Raises TimeIsUpError where the time was over.
    """
    command = [sys.executable, *map(str, arguments)]
    if cell.host_gib is not None:  # where memory ends the kernel is to end these processes and no other
        command = ["sh", "-c", 'echo 1000 > /proc/self/oom_score_adj; exec "$@"', "-", *command]
    start, longest_s = time.monotonic(), _PATIENCE * cell.expected_s
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, errors = process.communicate(timeout=max(1.0, min(longest_s, end_s + _LATE_S - start)))
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            if time.monotonic() - start < longest_s:
                raise TimeIsUpError from None
            code = None
    said = "" if code == 0 else "\n".join(beside_progress(errors.strip()))[-1500:]
    return {"code": code, "wall_s": round(time.monotonic() - start, 1), "said": said}, out


def taken(run_dir, images):
    """What a run made and took. Rates are those of its last batch, since the first one warms up if there are two."""
    units = sorted(memory_log(run_dir), key=lambda unit: unit["started_at"])
    assert sum(unit["images"] for unit in units) == images, "images were lost"
    last = [unit for unit in units if (unit["shard"], unit["batch"]) == (units[-1]["shard"], units[-1]["batch"])]
    seconds = {stage: sum(unit["stage_seconds"].get(stage, 0.0) for unit in last) for stage in _STAGES}
    count = sum(unit["images"] for unit in last)
    return {
        "rate": count * STEPS / seconds["denoise"],
        "images_per_s": count / sum(seconds.values()),
        "last": seconds | {"images": count},
        "peaks": [[unit["predicted_peak_bytes"], unit["peak_allocated_bytes"]] for unit in units],
        "reserved_bytes": max(unit["peak_reserved_bytes"] or 0 for unit in units),
        "ooms": sum(unit["ooms"] for unit in units),
        "failed": sum(unit.get("failed", 0) for unit in units),
        "policy": {field: units[-1]["policy"][field] for field in _POLICY},
        "host_rss_bytes": max(unit["host_rss_bytes"] for unit in units),
        "host_pinned_bytes": max(unit["host_pinned_bytes"] or 0 for unit in units),
        "stage_seconds": [unit["stage_seconds"] for unit in units],
    }


def lora_of(folder):
    """Where the LoRA of a model's folder is: beside it."""
    return folder.with_name(f"{folder.name}-lora.safetensors")


def make_lora(path, shrink=None):
    """A LoRA for all attention of SDXL's UNet, with random weights, in diffusers' form."""
    unet = component("sdxl", "unet", CONFIGS["sdxl"]["unet"] | (shrink or {}).get("unet", {}))
    noise, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in unet.named_modules():
        if name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
            up, down = (layer.out_features, LORA_RANK), (LORA_RANK, layer.in_features)
            for part, shape in (("lora_A", down), ("lora_B", up)):
                made = torch.randn(shape, generator=noise) / (8 * shape[1] ** 0.5)
                tensors[f"unet.{name}.{part}.weight"] = made.half()
    save_file(tensors, path, metadata={"format": "pt"})
    return path
