"""An unfinished run as this commit leaves it, to be kept for later ones: `python -m tests.runs.make WORK_DIR`.

WORK_DIR is written into the run's plan: choose one that says nothing of this machine. It gets a small model, two prompt
files, and a run that was whole, was extended by the second file, and was killed within the second of three shards. Copy
WORK_DIR to tests/runs/<commit>; tests/test_old_runs.py resumes, verifies and repairs all that are there.
"""

import sys
from pathlib import Path

from batchgen.files import unseal
from tests.commands import REAL, kill_when, run
from tests.pipeline.small_models import save

SLOW_STEPS = 300


def job(work, *more):
    """The arguments of the command that makes the run, or goes on with it; `work` has model and prompts."""
    return [
        "job=mars_batch", f"run_dir={work / 'run'}", f"model.path={work / 'model'}", "job.width=64", "job.height=64",
        "job.steps=2", "job.guidance=5.0", "job.batch_size=4", "output.batches_per_shard=2", "memory.policy.threads=1",
        *more,
    ]  # fmt: skip


def first(work):
    """The prompt file that the run began with."""
    return [f"job.prompts={work / 'first.csv'}"]


def both(work):
    """Both prompt files: the run's, and those that it was extended by."""
    return [f"job.prompts=[{work / 'first.csv'},{work / 'second.csv'}]", "extend=true"]


def _rows(name, count, steps=(2,)):
    return "prompt,steps,note\n" + "".join(
        f"{name} {place} on mars,{steps[place // 4 % len(steps)]},n{place}\n" for place in range(count)
    )


def main():
    work = Path(sys.argv[1])
    work.mkdir(parents=True)
    save("sd15", work / "model")
    (work / "first.csv").write_text(_rows("rover", 8) + "a row that is refused,-1,\n")
    (work / "second.csv").write_text(_rows("horse", 12, (2, SLOW_STEPS, 2)))
    done = run(REAL, *job(work, *first(work)))
    assert done.returncode == 0, done.stderr

    def within_second_shard():
        journals = (work / "run" / "work").glob("000001.*.jsonl")
        return any(sum(unseal(line) is not None for line in path.read_bytes().splitlines(True)) > 1
                   for path in journals)  # fmt: skip

    code, errors = kill_when(0.2, within_second_shard, REAL, *job(work, *both(work)))
    assert code == -9, (code, errors)
    print(*sorted(path.relative_to(work).as_posix() for path in (work / "run").rglob("*")), sep="\n")


if __name__ == "__main__":
    main()
