"""Whether ways of computing make the same bits in another process, and how far they are from fp32.

python -m tests.bench.same_bits [--images 192] [--only NAME,NAME] [--name same_bits] [key=value ... for batchgen]

Each way is run twice by the command, each time with an empty cache, and the second run is interrupted after its first
shard and resumed. Its images are held against those of eager fp32, pixel by pixel and by the judge. On a GPU if there
is one. Rows that are there already are kept; --only measures them anew.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from jobs.train_tiny.draw import FONT
from tests.bench.judge import answers, labels, load_judge, score
from tests.bench.pictures import held_out_scenes, in_order, prompt_file
from tests.bench.record import RESULTS, ROOT, Record, gpu_name
from tests.bench.tolerance import arrays, compare
from tests.commands import samples

PLAIN = ("speed=eager",)
WAYS = {
    "eager": PLAIN,
    "auto": ("speed=auto",),
    "channels_last": (*PLAIN, "speed.channels_last=true"),
    "traced": (*PLAIN, "speed.traced=true"),
    "flash": (*PLAIN, "speed.attention=flash"),
    "efficient": (*PLAIN, "speed.attention=efficient"),
    "cudnn": (*PLAIN, "speed.attention=cudnn"),
    "blocks": (*PLAIN, "speed.compile=blocks"),
    "whole": (*PLAIN, "speed.compile=whole"),
}
BATCH = 32


def made_by(words, folder, interrupted=False):
    """{name: bytes} of the samples that the command makes with an empty cache; whether it was resumed."""
    environment = os.environ | {"BATCHGEN_CACHE": str(folder / "cache")}
    typed = [sys.executable, "-m", "batchgen", *words, f"run_dir={folder / 'run'}"]
    was_resumed = interrupted and _stopped_half_way(typed, environment, folder / "run" / "shards")
    done = subprocess.run(typed, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(typed)}: exit code {done.returncode}\n{done.stderr}")
    return samples(folder / "run"), was_resumed


def _stopped_half_way(typed, environment, shards):
    process = subprocess.Popen(typed, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(shards.glob("*.tar")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    return process.wait() == 75


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--only", type=lambda names: names.split(","), default=[])
    parser.add_argument("--name", default="same_bits")
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("arguments", nargs="*", metavar="key=value")
    options = parser.parse_args()
    scenes = held_out_scenes(options.images, options.font)
    record = Record(options.name, gpu_name())
    known = {} if options.only else _known(options.name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = [f"job.prompts={prompt_file(scenes, folder)}", f"job.batch_size={BATCH}", "output.batches_per_shard=2"]
        words = ["job=mars_batch", *ours, *options.arguments]
        judge = load_judge(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        reference, _ = made_by([*words, *PLAIN, "model.dtype=fp32"], folder / "fp32")
        true = labels(scenes)
        record.add(way="fp32, eager", images=len(scenes), **score(answers(judge, in_order(reference, scenes)), true))
        for name in options.only or WAYS:
            if name in known:
                record.add(**known[name])
                continue
            first, _ = made_by([*words, *WAYS[name]], folder / f"{name}-1")
            second, was_resumed = made_by([*words, *WAYS[name]], folder / f"{name}-2", interrupted=True)
            used = {json.dumps(json.loads(data)["policy"]) for key, data in first.items() if key.endswith(".json")}
            record.add(
                way=name, same_bits=first == second, resumed=was_resumed, **compare(arrays(reference), arrays(first)),
                policy=[json.loads(one) for one in sorted(used)],
                **score(answers(judge, in_order(first, scenes)), true),
            )  # fmt: skip
            record.write()
    record.write()


def _known(name):
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    return {row["way"]: row for row in rows if "same_bits" in row}


if __name__ == "__main__":
    main()
