"""Planning ten million rows: seconds and peak memory of the planning alone, in a process of its own.

In .jsonl a tenth of the rows has a key of its own and a text that others have too; in .txt, which has no keys,
a tenth repeats a text. Needs about 8 GB of disk for the time being.

python -m tests.bench.plan [--rows N]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.record import ROOT, Record

GIB = 1 << 30
MAX_PEAK_GIB = 2
_DISK_BYTES_PER_ROW = 800
_SUBJECTS = ("an astronaut on a white horse", "a rover beside a crater", "a greenhouse full of tomatoes", "a small dog")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--only", nargs=2, metavar=("PROMPTS", "RUN_DIR"), help="the measured process: just plan")
    arguments = parser.parse_args()
    if arguments.only:
        _plan(*arguments.only)
        return
    rows = arguments.rows
    if shutil.disk_usage(tempfile.gettempdir()).free < rows * _DISK_BYTES_PER_ROW:
        sys.exit(f"needs {rows * _DISK_BYTES_PER_ROW / 1e9:.1f} GB free in {tempfile.gettempdir()}")
    record = Record("plan")
    for suffix, write in ((".jsonl", write_jsonl), (".txt", write_txt)):
        with tempfile.TemporaryDirectory() as scratch:
            prompts = Path(scratch) / f"prompts{suffix}"
            with prompts.open("w") as file:
                write(file, rows)
            load = round(os.getloadavg()[0], 2)
            found = _measure(prompts, Path(scratch) / "run")
        record.add(format=suffix, rows=rows, load_before=load, **found)
        what = f"peak memory, planning {rows:,} rows of {suffix}, GiB"
        record.bar(what, round(found["peak_bytes"] / GIB, 3), MAX_PEAK_GIB, f"--rows {rows}")
    record.write()


def write_jsonl(file, rows):
    for row in range(rows):
        value = {"prompt": _text(row)} if row % 10 else {"prompt": _text(row), "key": f"own-{row:08d}"}
        file.write(json.dumps(value) + "\n")


def write_txt(file, rows):
    for row in range(rows):
        file.write(_text(row) + "\n")


def _text(row):
    subject = _SUBJECTS[row // 10 % len(_SUBJECTS)]
    take = f"take {row}" if row % 10 else "once more"
    return f"a photo of {subject} on mars, long shadows, high detail, {take}"


def _measure(prompts, run_dir):
    # Its usage by wait4, of this process alone: RUSAGE_CHILDREN would be the most of all so far.
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.plan", "--only", prompts, run_dir], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"planning ended with exit code {process.returncode}")
    found = json.loads(said)
    return found | {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "rows_per_s": round(found["images"] / seconds),
        "peak_bytes": usage.ru_maxrss * 1024,
        "prompt_bytes": prompts.stat().st_size,
        "plan_bytes": sum(path.stat().st_size for path in (run_dir / "plan").iterdir()),
    }


def _plan(prompts, run_dir):
    """What `python -m batchgen` does before it starts workers, on the tiny model."""
    from batchgen.config.check import check
    from batchgen.config.schema import Config, JobConfig, ModelConfig
    from batchgen.paths import RunDir
    from batchgen.prepare import prepare

    job = JobConfig(name="plan", prompts=prompts, width=128, height=128, steps=20, scheduler="ddim")
    config = Config(run_dir=run_dir, job=job, model=ModelConfig(path="tiny", size_px=128))
    check(config)
    plan = prepare(RunDir(Path(run_dir)), config)
    rejects = sum(segment.rejects for segment in plan.segments)
    print(json.dumps({"images": plan.images, "shards": plan.shard_count, "rejects": rejects}))


if __name__ == "__main__":
    main()
