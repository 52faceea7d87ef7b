"""How well a dry run foretells time and disk: what it says, after a probe and by kept figures, and what a run takes.

python -m tests.bench.forecast                                          the bundled model on the CPU, several jobs
python -m tests.bench.forecast --gpu --model FOLDER [--images 320]      a model on a GPU, with one size

Each job is foretold after `dry_run=probe`, then run; then the same job is foretold by the figures of that run and run
again (on a GPU with half the images). Seconds are those of the whole command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.record import ROOT, Record, command, gpu_name, wait_for_quiet

GOAL_TIME_PERCENT = 15
GOAL_DISK_PERCENT = 10
SUBJECTS = ("a cat", "a horse", "a rocket", "an astronaut riding a horse", "two apples", "a house in the snow")
SIZES: tuple[dict[str, float], ...] = (
    {},
    {"width": 192, "height": 128},
    {"width": 96, "height": 96, "steps": 30},
    {"guidance": 1.0},
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--model", help="a folder in the diffusers layout; the bundled model without it")
    parser.add_argument("--images", type=int, default=320, help="on a GPU")
    parser.add_argument("--jobs", nargs="*", help="only these, on the CPU: mars, large, mixed, workers")
    parser.add_argument("--name")
    options, overrides = parser.parse_known_args()
    name = options.name or ("forecast_gpu" if options.gpu else "forecast")
    record = Record(name, gpu_name() if options.gpu else None)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BATCHGEN_CACHE"] = str(Path(scratch) / "cache")
        for what, job, again in _jobs(options, Path(scratch)):
            if options.model:
                job = [*job, f"model.path={Path(options.model).resolve()}"]
            _one(record, what, [*job, *overrides], again, Path(scratch), options.gpu)
    record.write()


def _jobs(options, scratch):
    """(name, its arguments, what the second run has besides) of each job."""
    if options.gpu:
        prompts = _text(scratch / "many.txt", options.images)
        half = [f"job.limit={options.images // 2}"]
        return [("gpu", ["job=mars_batch", f"job.prompts={prompts}", "model.size_px=512"], half)]
    large = _text(scratch / "large.txt", 200)
    large_job = ["job=mars_batch", f"job.prompts={large}", "job.width=256", "job.height=256", "job.guidance=1"]
    mixed = scratch / "mixed.jsonl"
    rows = [{"prompt": f"{SUBJECTS[place % 6]}, {place}", **SIZES[place % 4]} for place in range(120)]
    mixed.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    jobs: list[tuple[str, list[str], list[str]]] = [
        ("mars", ["job=mars_batch"], []),
        ("large", large_job, []),
        ("mixed", ["job=mars_batch", f"job.prompts={mixed}"], []),
        ("workers", ["job=mars_batch", "launch.workers=2"], []),
    ]
    return [job for job in jobs if not options.jobs or job[0] in options.jobs]


def _text(path, count):
    path.write_text("".join(f"{SUBJECTS[place % len(SUBJECTS)]}, number {place}\n" for place in range(count)))
    return path


def _one(record, what, job, again, scratch, gpu):
    load = None if gpu else wait_for_quiet()
    _dry(job, scratch / "none", "true", gpu)  # the model is checked once, by the first command that meets it
    probe_s = command("batchgen", *job, f"run_dir={scratch / 'none'}", "dry_run=probe", gpu=gpu)
    for how, more in (("probe", []), ("kept", again)):
        run_dir = scratch / f"{what}-{how}"
        said = json.loads(_dry([*job, *more], run_dir, "json", gpu))
        wall_s = command("batchgen", *job, *more, f"run_dir={run_dir}", gpu=gpu)
        written = sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
        off = {"time": _off(said["time_s"], wall_s), "disk": _off(said["disk_bytes"], written)}
        figures = {"said_s": said["time_s"], "took_s": wall_s, "time_off_percent": off["time"]}
        figures |= {"start_s": said["start_s"], "images": said["prompts"], "probe_command_s": probe_s}
        figures |= {"said_bytes": said["disk_bytes"], "wrote_bytes": written, "disk_off_percent": off["disk"]}
        record.add(what=what, how=how, load_before=load, **figures)
        asked = " ".join(sys.argv[1:])
        for kind, goal in (("time", GOAL_TIME_PERCENT), ("disk", GOAL_DISK_PERCENT)):
            told = None if off[kind] is None else abs(off[kind])
            record.bar(
                f"{what}, by {'a probe' if how == 'probe' else 'kept figures'}: the {kind} is off by percent",
                1000 if told is None else told,
                below=goal,
                arguments=asked,
            )


def _off(said, true):
    return None if said is None else round(100 * (said / true - 1), 1)


def _dry(job, run_dir, kind, gpu):
    """What a dry run prints."""
    done = subprocess.run(
        [sys.executable, "-m", "batchgen", *job, f"run_dir={run_dir}", f"dry_run={kind}"],
        cwd=ROOT,
        env=os.environ if gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
