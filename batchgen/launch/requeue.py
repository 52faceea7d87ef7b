"""An element of a job array, or a job, puts itself back into SLURM's queue."""

import subprocess
from collections.abc import Callable, Mapping

from batchgen.errors import in_one_line
from batchgen.machine.process import element_of

_LIMIT_S = 60.0


def job_of(environ: Mapping[str, str]) -> str | None:
    """How scontrol names the job, or the element of an array, that this process is in; None outside of SLURM."""
    return (element_of(environ) or "").partition(".")[0] or None  # without its step


def requeue(job: str, say: Callable[[str], None]) -> None:
    """Put a job back into the queue, and say so, or why that failed. Never raises. SLURM then ends this process."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
        failed = " ".join((done.stderr or done.stdout).split()) if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        failed = in_one_line(error)
    if failed is None:
        say(f"job {job} was put back into the queue, and goes on when its turn comes")
    else:
        say(f"job {job} was not put back into the queue ({failed}); the same command goes on")
