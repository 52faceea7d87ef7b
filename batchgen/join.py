"""`batchgen join RUN_DIR`: work on a planned run with this machine's GPUs, beside whoever else works on it.

An element of a job array is started like this. All settings are those of the plan and of the last command on the run.
"""

import os
import random
import sys
import time
from collections.abc import Mapping, Sequence

from batchgen import here
from batchgen.console import run_dir_command
from batchgen.errors import UserError
from batchgen.evening.outlook import Outlook
from batchgen.here import Outset, Part
from batchgen.launch.local import Share
from batchgen.launch.ranks import group_of
from batchgen.launch.requeue import job_of
from batchgen.machine.gpus import find_gpus
from batchgen.paths import RunDir
from batchgen.plan.store import load_plan

_WORKERS = "how many workers to start here; without it one for each GPU, or one on the CPU"


def join(run: RunDir, workers: int | None = None) -> int:
    """Work on the run with so many workers, or one for each GPU; return the exit code.

    Raises BatchgenError, also where the run is not planned, and where its file system allows one worker only.
    """
    began_s = time.time()
    plan = load_plan(run)
    group = group_of(os.environ)
    shows = group is None or not group.rank
    if (code := here.over(plan)) is not None:
        return code
    gpus = find_gpus()
    outset = here.set_out(plan, gpus, began_s) if shows else Outset(gpus, Outlook.of_plan(plan, gpus), began_s)
    if not here.furnish(plan):
        raise UserError(f"the file system of {run.root} has no hard links, so only one worker may work there")
    if group is not None:
        share = group.share([gpu.device for gpu in gpus])
    else:
        share = share_of(os.environ, outset.devices, workers, plan.shard_count)
    plan.config.launch.workers = len(share.ranks)
    frees = group is None and job_of(os.environ) is not None
    return here.work(plan, outset, share, Part(shows, True, frees, group.parent if group else None))


def share_of(environ: Mapping[str, str], devices: Sequence[str], workers: int | None, shards: int) -> Share:
    """The numbers of the workers here: an element's place in its array, or a draw among the places of the shards."""
    count = min(workers or len(devices) or 1, shards)
    task, least, elements = (environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "MIN", "COUNT"))
    if task.isdecimal() and least.isdecimal() and elements.isdecimal():
        first, others = (int(task) - int(least)) * count, int(elements) * count
    else:
        first, others = random.randrange(shards), 0
    return Share(devices, range(first, first + count), max(others, first + count), count)


def main() -> int:
    """The command line; returns the exit code."""
    return run_dir_command(
        "join", "Work on a planned run with the GPUs of this machine, too.", join, numbers={"--workers": _WORKERS}
    )


if __name__ == "__main__":
    sys.exit(main())
