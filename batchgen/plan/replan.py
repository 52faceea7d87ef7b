"""When a plan gives way to another: only while no work on it has begun. It is kept in replaced/<run id>/.

Two commands may replace one plan at once. Both move it to the same name, so only one of them can, and neither can move
away the plan that the other makes next. A worker that begins meanwhile has a mark in leases/ (`at_work`) or files in
work/ (`Attempt.commit`) before it reads which plan is there, and this module looks for both after it has moved the
plan. So either the worker sees that its plan is gone, or this module sees the worker and puts the plan back.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batchgen.errors import BrokenRunError, ResumeError
from batchgen.files import sync_directory, to_json
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.plan.store import Plan, run_id_of

_run_ids: dict[tuple[RunDir, int, int, int, int], str] = {}


@contextmanager
def at_work(plan: Plan) -> Iterator[None]:
    """State in leases/ that this process works on the plan: loading a model may take long before it takes a lease.

    Raises ResumeError where another command has replaced the plan since it was loaded.
    """
    mark = plan.run.new_mark()
    with suppress(OSError):  # a full disk must not end the work
        mark.write_bytes(to_json({"process": process.identity()}).encode())
    try:
        refuse_replaced(plan.run, plan.run_id)  # after the mark is there for a command that would replace the plan
        yield
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def refuse_replaced(run: RunDir, run_id: str) -> None:
    """Raise ResumeError where another command has replaced the plan of that id; BrokenRunError where it is gone."""
    now = _run_id_now(run)
    if now is None:
        raise BrokenRunError(f"{run.plan.root} is gone or damaged: put it back, and the same command goes on")
    if now != run_id:
        raise ResumeError(
            f"another command planned {run.root} again with different settings: what worked on the earlier plan stops"
        )


def _run_id_now(run: RunDir) -> str | None:
    # The file lists every shard, and a plan that gave way is kept: so a file of the same inode and time says the same.
    try:
        facts = os.stat(run.plan.facts)
    except OSError:
        return None
    seen = (run, facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
    if seen not in _run_ids and (now := run_id_of(run)) is not None:
        _run_ids[seen] = now
    return _run_ids.get(seen)


def sweep_marks(run: RunDir) -> None:
    """Remove the marks of processes that were killed."""
    for mark in run.marks():
        if _is_gone(mark):
            mark.unlink(missing_ok=True)


def _is_gone(mark: Path) -> bool:
    try:
        return process.is_gone(json.loads(mark.read_bytes())["process"])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_untouched(run: RunDir) -> bool:
    """Whether no work on the plan has begun, is about to begin, or was handed over to others."""
    marks = set(run.marks())  # read first: a mark that appears after this counts
    return not any(_holds_anything(directory, marks) for directory in (run.shards, run.work, run.leases, run.slurm))


def _holds_anything(directory: Path, marks: set[Path]) -> bool:
    # Temporary files do not count, nor do marks of processes that were killed.
    paths = list(directory.iterdir()) if directory.is_dir() else []
    return any(not (path.name.startswith(".") or path in marks and _is_gone(path)) for path in paths)


def refuse_used(run: RunDir) -> None:
    """Raise ResumeError where the run's directory is a file, or holds other files and no plan."""
    if run.root.exists() and not run.root.is_dir():
        raise ResumeError(f"run_dir={run.root} is a file: name a directory")
    if run.root.is_dir() and not run.plans():
        # The draft of a planning that was cut off, and what is left after a plan gave way, are files of a run.
        ours = run.replaced.is_dir() and is_untouched(run)
        others = [path for path in run.root.iterdir() if not path.name.startswith("plan.")]
        if others and not ours and not run.plans():  # look again: another command may have planned the run just now
            lost = f"was a run, but {run.plan.root} is gone: put it back, or name another directory"
            strange = "holds other files and is not a run: name a directory of its own"
            raise ResumeError(f"run_dir={run.root} {lost if run.free.exists() or run.committed() else strange}")


def give_way(plan: Plan) -> bool:
    """Move a plan that no work has begun on out of the way. False where it is in use, or another command moved it."""
    run = plan.run
    place = run.replaced / plan.run_id
    place.mkdir(parents=True, exist_ok=True)
    moved = []
    try:
        # First what was chosen for its model, then its extensions, the last first: what is left is always a plan.
        for path in (run.policies, run.failures, *(directory.root for directory in reversed(run.plans()))):
            if path.exists():
                os.rename(path, place / path.name)
                moved.append(path)
    except OSError:  # another command was first; a directory that holds something is never replaced
        _put_back(moved, place)
        return False
    if not is_untouched(run):
        _put_back(moved, place)
        return False
    sync_directory(place)
    sync_directory(run.root)
    return True


def _put_back(moved: list[Path], place: Path) -> None:
    for path in reversed(moved):
        with suppress(OSError):  # another command's plan is there by now
            os.rename(place / path.name, path)
    with suppress(OSError):
        place.rmdir()
