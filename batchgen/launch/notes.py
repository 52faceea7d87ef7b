"""The notes in slurm/ of a run: what was submitted, and how the checks at the end went. Who notes first has won."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from batchgen.errors import BrokenRunError
from batchgen.files import put_new, to_json
from batchgen.paths import RunDir

_NOTE = re.compile(r"(\d{3,})\.json")
_CHECK = re.compile(r"check-(\d+)\.json")


@dataclass(frozen=True, slots=True)
class Submission:
    """An array that was submitted: its id, its number of elements, and the id of the job that checks the run after it.

    `submitted_at`: s since the epoch. `collector` is "" where there is none.
    """

    job: str
    elements: int
    collector: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Check:
    """How a check at the end of an array went: the exit code of verify, and when, in s since the epoch."""

    job: str
    code: int
    ended_at: float


def logs_dir(run: RunDir) -> Path:
    """What the elements of the arrays print, one file each."""
    return run.worker_logs.parent / "slurm"


def submissions(run: RunDir) -> list[Submission]:
    """What was submitted for this run, in order. Raises BrokenRunError for a note that cannot be read."""
    return [_read(path) for path in _numbered(run)]


def checks(run: RunDir) -> list[Check]:
    """How the checks went, the last one last. One that cannot be read is left out."""
    found = []
    for path in run.slurm.glob("check-*.json") if run.slurm.is_dir() else ():
        try:
            if _CHECK.fullmatch(path.name):
                found.append(Check(**json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda check: check.ended_at)


def note(run: RunDir, before: Sequence[Submission], job: str, elements: int, collector: str) -> bool:
    """Note what was submitted after those `before`; False where another command was first, which then counts."""
    made = Submission(job, elements, collector, round(time.time(), 3))
    return put_new(run.slurm / f"{len(before) + 1:03d}.json", (to_json(asdict(made)) + "\n").encode())


def _numbered(run: RunDir) -> list[Path]:
    paths = [path for path in run.slurm.iterdir() if _NOTE.fullmatch(path.name)] if run.slurm.is_dir() else []
    return sorted(paths, key=lambda path: int(path.stem))


def _read(path: Path) -> Submission:
    try:
        values = json.loads(path.read_bytes())
        return Submission(
            str(values["job"]), int(values["elements"]), str(values["collector"]), float(values["submitted_at"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenRunError(
            f"{path} cannot be read: move it away if no array of this run is in the queue (squeue), and the same "
            "command goes on"
        ) from error
