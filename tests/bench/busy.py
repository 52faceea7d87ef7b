"""How busy eight workers are from the first batch to the last commit, on a fake engine whose time goes by padded rows.

python -m tests.bench.busy [--workers N]

Each worker counts from its first batch on, since no plan can keep one busy that is not there yet; where all start
together, what they do is also divided by the time of all of them from the first batch of any. A machine of two cores
is enough: the engine sleeps.
"""

import argparse
import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from batchgen.events import read_events
from batchgen.paths import RunDir
from tests.bench.record import Record
from tests.commands import FAKE, run, write_prompts

TOGETHER = ((72, 5.0), (1_100, 0.5), (9_000, 0.2))  # prompts, and seconds of a padded row
APART = ((72, 1.0), (1_100, 1.0), (9_000, 0.25))
APART_S = 20
SLOW_RANK = 3
TOGETHER_GOAL = 0.95
APART_GOAL = 0.85


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    workers = parser.parse_args().workers
    record = Record("busy")
    for count, row_s in TOGETHER:
        found = measure(workers, count, row_s)
        record.add(prompts=count, workers=workers, row_s=row_s, **found)
        record.bar(f"busy share, {count:,} prompts on {workers} workers", found["busy"], at_least=TOGETHER_GOAL)
    for count, row_s in APART:
        found = measure(workers, count, row_s, FAKE_APART_S=str(APART_S), FAKE_SLOW=str(SLOW_RANK))
        record.add(prompts=count, workers=workers, row_s=row_s, apart_s=APART_S, slow_rank=SLOW_RANK, **found)
        what = f"busy share, {count:,} prompts on {workers} workers, starts {APART_S} s apart, one of half speed"
        record.bar(what, found["busy"], at_least=APART_GOAL)
    record.write()


def measure(workers, count, row_s, **environment):
    """The shares, and how long it took, of one run."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir, prompts = Path(scratch) / "run", write_prompts(Path(scratch) / "prompts.txt", count)
        done = run(
            FAKE, "job=mars_batch", f"run_dir={run_dir}", f"job.prompts={prompts}",
            "job.width=64", "job.height=64", "memory.policy.micro_batch=32", f"launch.workers={workers}",
            timeout_s=3600, FAKE_ROW_S=str(row_s), FAKE_STEP_S="0", **environment,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(done.stderr)
        logs = sorted(RunDir(run_dir).worker_logs.glob("*.jsonl"))
        spans = [spans_of(list(read_events(path))) for path in logs]
    at_work = [one for one in spans if one]
    first_s, last_s = min(one[0][0] for one in at_work), max(one[-1][1] for one in at_work)
    worked_s = sum(stop - start for one in at_work for start, stop in one)
    return {
        "busy": round(worked_s / sum(last_s - one[0][0] for one in at_work), 4),
        "busy_of_all_from_the_first": round(worked_s / (workers * (last_s - first_s)), 4),
        "workers_at_work": len(at_work),
        "shards": sum(len(one) for one in at_work),
        "seconds": round(last_s - first_s, 1),
        "load_after": round(os.getloadavg()[0], 2),
    }


def spans_of(events):
    """[(start, stop)] in seconds of each shard that a worker made, the commit included."""
    times = {kind: [_seconds(event) for event in events if event["event"] == kind] for kind in ("shard", "commit")}
    return list(zip(times["shard"], times["commit"], strict=True))


def _seconds(event):
    return datetime.fromisoformat(event["at"]).timestamp()


if __name__ == "__main__":
    main()
