"""From the command to the first denoising step, beside a bare script that does the same, in turns.

python -m tests.bench.start MODEL [--small] [--rounds 3]     MODEL: as tests.bench.full_size makes sd15

The rows: `first`, a model that was never checked here; `known`, a model that was; `unread`, the same where the files
that Python imports are not read ahead. Each cold, where nothing that is read is in the host's cache of files, and
warm. --small: the bundled model and small images, to try it without a GPU.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from batchgen.events import read_events, seconds_of
from batchgen.paths import RunDir
from batchgen.places import models_dir
from tests.bench.record import ROOT, Record, gpu_name

# The bare script: diffusers as its guide shows it. It says when it imported, loaded and made its first step.
BARE = """
import sys, time
import torch
from diffusers import StableDiffusionPipeline
print("imported", time.time())
device, edge = ("cuda", 512) if torch.cuda.is_available() else ("cpu", 64)
dtype = torch.float16 if device == "cuda" else torch.float32
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=dtype).to(device)
print("loaded", time.time())
said = []
def stepped(*given):
    if not said:
        said.append(print("first_step", time.time()))
    return given[-1]
pipe("a photo of a cat", num_inference_steps=2, width=edge, height=edge, output_type="latent",
     callback_on_step_end=stepped)
"""
GONE_BEFORE = {"first": ".", "unread": "imports"}  # of batchgen's cache
_EVENTS = ("start", "loaded", "policy", "first_step")


def bare(model):
    """Seconds from the script's start to each of its marks."""
    began_s = time.time()
    said = _run([sys.executable, "-c", BARE, str(model)])
    marks = (line.split() for line in said.splitlines() if line.startswith(("imported ", "loaded ", "first_step ")))
    return {f"{name}_s": round(float(at) - began_s, 2) for name, at in marks}


def batchgen(model, small, cache):
    """Seconds from the command to the events of its worker, for one image of two steps."""
    edge = 64 if small else 512
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        (Path(folder) / "prompts.txt").write_text("a photo of a cat\n")
        began_s = time.time()
        _run(
            [sys.executable, "-m", "batchgen", "job=mars_batch", f"model.path={model}", f"job.width={edge}",
             f"job.height={edge}", "job.steps=2", f"job.prompts={folder}/prompts.txt", f"run_dir={run}"],
            BATCHGEN_CACHE=str(cache),
        )  # fmt: skip
        ended_s = time.time()
        events = [event for path in RunDir(run).event_logs() for event in read_events(path)]
        at_s = {event["event"]: seconds_of(event["at"]) for event in reversed(events)}
    told = {f"{name}_s": round(at_s[name] - began_s, 2) for name in _EVENTS if name in at_s}
    return told | {"whole_s": round(ended_s - began_s, 2)}


def forget(*folders):
    """Have the host forget the content of all files there, as far as nobody uses them now."""
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def _run(command, **environment):
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)[:200]}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=models_dir() / "tiny")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    record = Record("start_small" if options.small else "start", gpu_name())
    libraries = Path(psutil.__file__).parents[1]
    cache = Path(tempfile.mkdtemp(prefix="batchgen-start-"))
    medians = {}
    try:
        for warmth in ("cold", "warm"):
            found: dict[str, list[float]] = {}
            for turn in range(options.rounds):
                for what in ("bare", "first", "known", "unread"):
                    if warmth == "cold":
                        forget(libraries, options.model, ROOT / "batchgen")
                    if what in GONE_BEFORE:
                        shutil.rmtree(cache / GONE_BEFORE[what], ignore_errors=True)
                    told = bare(options.model) if what == "bare" else batchgen(options.model, options.small, cache)
                    record.add(what=what, files=warmth, turn=turn, **told)
                    found.setdefault(what, []).append(told["first_step_s"])
            medians[warmth] = {what: sorted(all_s)[len(all_s) // 2] for what, all_s in found.items()}
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    for warmth, seconds in medians.items():
        ratio = round(seconds["known"] / seconds["bare"], 2)
        record.bar(f"command to first step, files {warmth}, figures known, against a bare script", ratio, below=1.0)
        record.bar(f"s from the command to the first step, files {warmth}, first of all", seconds["first"])
    record.write()


if __name__ == "__main__":
    main()
