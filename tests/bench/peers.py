"""The same images by batchgen and by what others would take for them: Ray Data, and a plain accelerate script.

python -m tests.bench.peers RAY_PYTHON [--images 256] [--rounds 3]

RAY_PYTHON is the python of an environment of its own, which has what peer_ray.py imports:
pip install -c constraints.txt torch diffusers transformers accelerate webdataset "ray[data]"
On the CPU with the bundled model: the same prompts, steps and batches, and PNGs in tars for webdataset. The commands
take turns, and each is measured as a whole, from its start on a prompt file to its end. A turn that others on the
machine disturb, just before or just after it, is made again, and a row says if none was undisturbed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import psutil

from batchgen.places import models_dir
from tests.bench.record import ROOT, Record, wait_for_quiet

MODEL, STEPS, GUIDANCE, BATCH = "tiny_2", 20, 5.0, 16
HERE = Path(__file__).parent
TRIES, LOOK_S, BUSY_PERCENT = 4, 4.0, 15.0
_VERSIONS = """
import json, platform
from importlib.metadata import version
print(json.dumps({"python": platform.python_version()} | {n: version(n) for n in ("ray", "torch", "diffusers")}))
"""


def commands(ray_python, prompts, to):
    """What is typed for each, {name: words}: prompts from a file, tars into `to`."""
    work = [models_dir() / MODEL, prompts, to, STEPS, GUIDANCE, BATCH]
    settings = [f"job.steps={STEPS}", f"job.guidance={GUIDANCE}", f"job.batch_size={BATCH}", "job.scheduler=ddim"]
    found = {
        "batchgen": [sys.executable, "-m", "batchgen", f"job.prompts={prompts}", *settings, f"run_dir={to}"],
        "accelerate": [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", 1, "--num_machines", 1,
            "--mixed_precision", "no", "--dynamo_backend", "no", HERE / "peer_accelerate.py", *work,
        ],
        "ray": [ray_python, HERE / "peer_ray.py", *work],
    }  # fmt: skip
    return {name: [str(word) for word in words] for name, words in found.items()}


def seconds_of(words, to, images):
    """The seconds of a command; it must make so many PNGs in tars."""
    left_out = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")  # each decides for itself
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    began_s = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began_s
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    made = 0
    for path in to.rglob("*.tar"):
        with tarfile.open(path) as tar:
            made += sum(name.endswith(".png") for name in tar.getnames())
    if made != images:
        sys.exit(f"{' '.join(words)}: {made} images, not {images}")
    return round(seconds, 2)


def turn(words, to, images):
    """(seconds, whether nobody else used the CPU before and after) of one turn, made again where somebody did."""
    for number in range(TRIES):
        wait_for_quiet(300.0)
        before = psutil.cpu_percent(LOOK_S)
        shutil.rmtree(to, ignore_errors=True)
        seconds = seconds_of(words, to, images)
        alone = max(before, psutil.cpu_percent(LOOK_S)) < BUSY_PERCENT
        print(f"{to.name}, try {number + 1}: {seconds} s, {'alone' if alone else 'disturbed'}", flush=True)
        if alone:
            break
    return seconds, alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ray_python", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ray_python = options.ray_python.absolute()
    record = Record("peers")
    taken: dict[str, list[float]] = {}
    alone: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.txt"
        prompts.write_text(
            "".join(f"an astronaut riding a horse on mars, {place}\n" for place in range(options.images))
        )
        for number in range(options.rounds):
            for name in commands(ray_python, prompts, scratch):
                to = Path(scratch) / f"{name}-{number}"
                seconds, was_alone = turn(commands(ray_python, prompts, to)[name], to, options.images)
                taken.setdefault(name, []).append(seconds)
                alone.setdefault(name, []).append(was_alone)
    versions = json.loads(subprocess.run([ray_python, "-c", _VERSIONS], capture_output=True, check=True).stdout)
    shown = {name: _shown(words) for name, words in commands("python", "PROMPTS", "DIR").items()}
    middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in middle.items():
        record.add(
            peer=name, images=options.images, seconds=seconds, all_seconds=taken[name], undisturbed=alone[name],
            images_per_s=round(options.images / seconds, 3), command=shown[name],
            **({"versions": versions} if name == "ray" else {}),
        )  # fmt: skip
    for name in ("accelerate", "ray"):
        what = f"images/s of batchgen over those of {name}"
        record.bar(what, round(middle[name] / middle["batchgen"], 2))
    record.write()


def _shown(words):
    return " ".join(words).replace(f"{ROOT}/", "").replace(sys.executable, "python")


if __name__ == "__main__":
    main()
