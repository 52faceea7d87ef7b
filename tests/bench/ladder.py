"""Whether every job fits, at the best speed that fits: full-size models, while another process holds most of the GPU.

python -m tests.bench.ladder MODELS [--jobs sd15 sdxl landscape] [--rows FILE]     MODELS: made by full_size.py

One GPU. First what denoising and decoding take by themselves, without the other process (grid.py): from these all
policies are composed. Then each job in each so much free memory, by the command, with its own choice and nothing known
before; where a composed policy would have been faster by more than 5%, that one too. Rows that FILE holds are kept.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from batchgen.errors import EXIT_USER
from batchgen.machine.versions import versions
from batchgen.padding import padded_rows
from batchgen.placements import PLACEMENTS
from tests.bench.record import RESULTS, ROOT, Asked, Record, commit, gpu_name
from tests.bench.refused import Ballast
from tests.commands import memory_log, worker_events

GIB = 1 << 30
FREE_GIB = (2, 3, 4, 6, 8, 10, 12, 16, 24, 40, None)  # None: the whole card
# Model, size, images, how many of those a batch has, and steps.
JOBS = {
    "sd15": ("sd15", 512, 512, 96, 32, 10),
    "sdxl": ("sdxl", 1024, 1024, 64, 32, 5),
    "landscape": ("sd15", 3840, 2224, 2, 1, 5),
}
REGRET_GOAL, SHARE_GOAL, WITHIN = 0.95, 0.9, 0.1
# Of free memory, what is no policy's to use: the context, kernels, and what fragments take.
CONTEXT_BYTES = 0.75 * GIB
LESS_BYTES = GIB // 32  # where a policy did not fit, the next one that is tried takes so much less


class Rows:
    """What was measured, kept in a file of JSON lines, so that a run that was cut off goes on.

    Each has its GPU, of which alone it is used again, the commit and the versions.
    """

    def __init__(self, path, gpu):
        self._path = path
        self._gpu = gpu
        self.all = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def get(self, key, measure):
        """The rows of this key, measured unless they are there."""
        found = self.known(key)
        if not found:
            key = self._on_gpu(key)
            found = [key | row | {"commit": commit(), "versions": versions()} for row in measure()]
            self.all += found
            with self._path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in found)
            print(json.dumps(found[-1])[:400], flush=True)
        return found

    def known(self, key):
        """The rows of this key that were measured before."""
        key = self._on_gpu(key)
        return [row for row in self.all if {name: row.get(name) for name in key} == key]

    def _on_gpu(self, key):
        return json.loads(json.dumps(key | {"device": self._gpu}))


def cell(job, models, ballast, free_gib, policy=None):
    """One run of the command beside a process that leaves so much free; what it made and took."""
    ballast.leave(math.inf if free_gib is None else free_gib)
    model, width, height, images, batch, steps = JOBS[job]
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        prompts = Path(scratch) / "prompts.txt"
        prompts.write_text("".join(f"a photo of an astronaut riding horse {place}\n" for place in range(images)))
        arguments = [
            "job=mars_batch", f"model.path={models / model}", "model.guidance=7.5", f"run_dir={run_dir}",
            f"job.prompts={prompts}", f"job.steps={steps}", f"job.width={width}", f"job.height={height}",
            f"job.batch_size={batch}", "speed.channels_last=true",
            *(f"memory.policy.{field}={value}" for field, value in (policy or {}).items()),
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "batchgen", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | {"BATCHGEN_CACHE": scratch},
        )  # fmt: skip
        row = {"code": done.returncode, "said": done.stderr.strip()[-300:] if done.returncode else ""}
        if done.returncode == 0:
            row |= _taken(run_dir, images, batch)
        return [row]


def _taken(run_dir, images, batch):
    units = memory_log(run_dir)
    assert sum(unit["images"] for unit in units) == images, "images were lost"
    later = [unit for unit in units if unit["batch"] > 0]  # the first one warms up
    seconds = sum(sum(unit["stage_seconds"][stage] for stage in ("encode", "denoise", "decode")) for unit in later)
    return {
        "images_per_s": (images - batch) / seconds,
        "peaks": [[unit["predicted_peak_bytes"], unit["peak_allocated_bytes"]] for unit in units],
        "reserved_bytes": max(unit["peak_reserved_bytes"] for unit in units),
        "ooms": sum(unit["ooms"] for unit in units),
        "policy": {field: units[-1]["policy"][field] for field in _FIELDS},
        "reason": next((event["reason"] for event in worker_events(run_dir) if event["event"] == "chosen"), None),
    }


_FIELDS = ("placement", "stream_buffers", "micro_batch", "guidance_split", "decode_chunk", "tile_px")


def composed(rows, job):
    """Every policy that the grid's rows make up: (images a second, peak bytes, policy)."""
    _, _, _, _, batch, steps = JOBS[job]
    found = []
    decoded = [row for row in rows if (row["stage"], row["placement"]) == ("decode", "model_offload")]
    # What decoding takes more where all weights stay in place, by the one decode that was measured both ways.
    (both,) = [row for row in rows if (row["stage"], row["placement"]) == ("decode", "resident")]
    beside = both["peak_bytes"] - next(row["peak_bytes"] for row in decoded if _decoding(row) == _decoding(both))
    denoised = [row for row in rows if row["stage"] == "denoise"]
    step_s = {tuple(row[field] for field in _FIELDS[:4]): row["seconds"] for row in denoised}
    for one in denoised:
        placement, buffers, micro_batch, split = (one[field] for field in _FIELDS[:4])
        whole, rest = divmod(batch, micro_batch)
        batch_step_s = whole * one["seconds"]
        if rest:
            batch_step_s += step_s[placement, buffers, padded_rows(rest, micro_batch), split]
        # The text encoders, where they are not in place, are away while it decodes: a little less than all in place.
        in_place = placement in ("resident", "text_offload")
        for other in decoded:
            seconds = steps * batch_step_s + batch * other["seconds"]
            policy = {field: one[field] for field in _FIELDS[:4]} | {field: other[field] for field in _FIELDS[4:]}
            decode_bytes = other["peak_bytes"] + (beside if in_place else 0)
            found.append((batch / seconds, max(one["peak_bytes"], decode_bytes), policy))
    return sorted(found, key=lambda one: -one[0])


def _decoding(row):
    return row["decode_chunk"], row["tile_px"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--rows", type=Path, default=RESULTS / "ladder.rows.jsonl")
    options = parser.parse_args()
    options.rows.parent.mkdir(exist_ok=True)
    gpu = gpu_name()
    record = Record("ladder", gpu)
    with Ballast() as ballast:
        ladder = Ladder(Rows(options.rows, gpu), options.models.resolve(), ballast)
        chosen = {(job, free_gib): ladder.chosen(job, free_gib) for job in options.jobs for free_gib in FREE_GIB}
        beside = ladder.sequential() if "sd15" in options.jobs else None
        policies = {job: ladder.composed(job) for job in options.jobs}
        for (job, free_gib), row in chosen.items():
            row |= ladder.best_of_all(job, free_gib, policies[job], row)
            record.add(**row)
    bars(record, list(chosen.values()))
    if beside is not None:
        record.add(**beside)
        record.bar("SD 1.5 in 3 GiB, all layers waiting on the host: images/s", round(beside.get("images_per_s", 0), 2))
    record.write()


class Ladder:
    """What is measured, each thing once."""

    def __init__(self, rows, models, ballast):
        self._rows = rows
        self._models = models
        self._ballast = ballast

    def chosen(self, job, free_gib):
        """A cell, with the policy that is chosen there."""
        return self._cell({"kind": "chosen", "job": job, "free_gib": free_gib})

    def sequential(self):
        """What the guide does where memory is short, in one cell; the rest of the policy is chosen around it."""
        asked = {"placement": "sequential_offload"}
        return self._cell({"kind": "beside", "job": "sd15", "free_gib": 3, "asked": asked})

    def composed(self, job):
        """All policies of the job's grid, as `composed` gives them."""
        model, width, height, _, batch, _ = JOBS[job]
        known = []
        with Asked(
            "-m", "tests.bench.grid", self._models / model, width, height, batch,
            PYTORCH_ALLOC_CONF="expandable_segments:True",
        ) as grid:  # fmt: skip
            for placement in PLACEMENTS:
                key = {"kind": "grid", "job": job, "placement": placement}
                known += self._rows.get(key, lambda name=placement: self._grid(grid, name))
        return composed(known, job)

    def _grid(self, grid, placement):
        self._ballast.leave(math.inf)
        return [json.loads(line) for line in grid.ask(placement)]

    def best_of_all(self, job, free_gib, policies, row):
        """The best of the composed policies that this cell runs: the images a second that it has there."""
        budget_bytes = (1 << 50) if free_gib is None else free_gib * GIB - CONTEXT_BYTES
        for speed, peak_bytes, policy in policies:
            if peak_bytes > budget_bytes:
                continue
            if row["code"] == 0 and row["images_per_s"] >= REGRET_GOAL * speed:
                return {"best_images_per_s": max(speed, row["images_per_s"]), "best": policy}
            # Composed figures leave things out: the winner is run under the same conditions.
            checked = self._cell({"kind": "best", "job": job, "free_gib": free_gib, "asked": policy})
            if checked["code"] == 0 and not checked["ooms"]:
                return {"best_images_per_s": checked["images_per_s"], "best": policy}
            budget_bytes = peak_bytes - LESS_BYTES  # it did not fit, whatever the sum says: something smaller
        return {"best_images_per_s": row.get("images_per_s"), "best": row.get("policy")}

    def _cell(self, key):
        asked = key.get("asked")
        return self._rows.get(key, lambda: cell(key["job"], self._models, self._ballast, key["free_gib"], asked))[0]


def bars(record, rows):
    """The goals, over all cells."""
    crashed = [row for row in rows if row["code"] not in (0, EXIT_USER)]
    wrongly = [row for row in rows if row["code"] == EXIT_USER and row["best_images_per_s"]]
    record.bar("cells that crashed", len(crashed), below=1)
    record.bar("cells refused that some policy runs", len(wrongly), below=1)
    run = [row for row in rows if row["code"] == 0]
    peaks = [peak for row in run for peak in row["peaks"]]
    near = sum(abs(predicted - measured) <= WITHIN * measured for predicted, measured in peaks)
    record.bar("share of batches whose peak was predicted within 10%", round(near / len(peaks), 3), at_least=SHARE_GOAL)
    short = max(measured - predicted for predicted, measured in peaks) / GIB
    record.bar("most that a prediction was too low by, GiB (the margin is 0.19 or more)", round(short, 3), below=0.19)
    best = [row for row in run if row["best_images_per_s"]]
    good = sum(row["images_per_s"] >= REGRET_GOAL * row["best_images_per_s"] for row in best)
    record.bar("share of cells at 95% of the best policy's speed", round(good / len(best), 3), at_least=SHARE_GOAL)
    by_cell = {(row["job"], row["free_gib"]): row for row in run}
    if ("sd15", 3) in by_cell and ("sd15", None) in by_cell:
        share = by_cell["sd15", 3]["images_per_s"] / by_cell["sd15", None]["images_per_s"]
        record.bar("SD 1.5 in 3 GiB: images/s over those of the whole card", round(share, 3), at_least=0.667)
    if any(job == "landscape" for job, _ in by_cell):
        record.bar("3840x2224 in 8 GiB: images", int(("landscape", 8) in by_cell), at_least=1)


if __name__ == "__main__":
    main()
