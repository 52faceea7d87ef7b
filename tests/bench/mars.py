"""The guide's job as a user runs it: `python -m batchgen job=mars_batch`, 64 images of the tiny model on the CPU.

python -m tests.bench.mars
"""

import statistics
import tempfile
from pathlib import Path

from batchgen.paths import RunDir
from batchgen.shards.index import read_index
from tests.bench.record import Record, command, wait_for_quiet

RUNS = 3
IMAGES = 64
MAX_RUN_S = 60
MAX_COMMAND_S = 2


def main():
    record = Record("mars")
    with tempfile.TemporaryDirectory() as scratch:
        run_s = _measure_run(record, Path(scratch))
        record.bar(f"{IMAGES} images, the whole command, median seconds", run_s, MAX_RUN_S)
        for what, seconds in _measure_commands(record, Path(scratch)).items():
            record.bar(f"{what}, median seconds", seconds, MAX_COMMAND_S)
    record.write()


def _job(run_dir):
    return ["batchgen", "job=mars_batch", f"job.limit={IMAGES}", f"run_dir={run_dir}"]


def _measure_run(record, scratch):
    load = wait_for_quiet()
    seconds = [command(*_job(scratch / str(number))) for number in range(RUNS)]
    index = read_index(RunDir(scratch / "0"))
    assert index is not None
    median_s = statistics.median(seconds)
    record.add(
        what="run",
        seconds=median_s,
        all_seconds=seconds,
        load_before=load,
        images=index["samples"],
        bytes=sum(shard["bytes"] for shard in index["shards"]),
        images_per_s=round(index["samples"] / median_s, 2),
    )
    if index["samples"] != IMAGES:
        raise SystemExit(f"{index['samples']} images, not {IMAGES}")
    return median_s


def _measure_commands(record, scratch):
    done = scratch / "0"
    commands = {
        "--help": ["batchgen", "--help"],
        "dry run": [*_job(scratch / "none"), "dry_run=true"],
        "status": ["batchgen.status", done],
        "verify": ["batchgen.verify", done],
        "the same command when done": _job(done),
    }
    medians = {}
    for what, arguments in commands.items():
        seconds = [command(*arguments) for _ in range(RUNS)]
        medians[what] = statistics.median(seconds)
        record.add(what=what, seconds=medians[what], all_seconds=seconds)
    return medians


if __name__ == "__main__":
    main()
