"""The model is copied once to each machine's own disk (launch.scratch), and the workers there load the copy.

A copy is made under another name, flushed, checked by the model's fingerprint and then renamed, under a lock that the
system releases when its holder is killed. So there is never half a copy under the name that workers use. Where a copy
cannot be made, workers load the model from where it is.
"""

import fcntl
import os
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from batchgen.errors import ModelError, StoppedError, from_os_error, in_one_line
from batchgen.events import EventLog
from batchgen.files import sync_directory
from batchgen.models.find import ModelFiles, files_in, locate
from batchgen.models.fingerprint import VERSION, fingerprint_model
from batchgen.models.parts import INDEX_FILE
from batchgen.plan.store import Plan
from batchgen.units import gib

FOLDER = "batchgen-models"
_POLL_S = 0.5
_PIECE_BYTES = 16 << 20
_MARGIN = 1.05  # of the room that a copy needs


class Staged(NamedTuple):
    """The plan, with the path of the model's copy if there is one, and what the worker's log says of that."""

    plan: Plan
    facts: dict[str, Any]


class _NoCopyError(Exception):
    """Why the model is loaded from where it is."""


def stage(plan: Plan, log: EventLog, stop: threading.Event) -> Staged:
    """Have a copy of the plan's model in launch.scratch, made now if it is not there.

    It never fails for want of room or rights: then the log says why, and the plan stays as it is. Raises StoppedError
    when `stop` is set meanwhile.
    """
    if plan.config.launch.scratch is None:
        return Staged(plan, {})
    began_s = time.monotonic()
    try:
        folder = _copy_of(plan, log, stop)
    except (_NoCopyError, ModelError, OSError) as error:
        why = str(from_os_error(error, "launch.scratch")) if isinstance(error, OSError) else in_one_line(error)
        log.add("not_staged", why=why)
        return Staged(plan, {"not_staged": why})
    facts = {"model": str(folder), "staging_s": round(time.monotonic() - began_s, 2)}
    log.add("staged", **facts)
    model = replace(plan.config.model, path=str(folder), base=None, vae=None)
    return Staged(replace(plan, config=replace(plan.config, model=model)), facts)


def scratch_folder(scratch: str) -> Path:
    """The folder that launch.scratch means on this machine: ~, and variables such as $TMPDIR, have their values here.

    Raises ValueError where a variable is not set, or the path is not absolute.
    """
    text = os.path.expandvars(scratch)
    path = Path(os.path.expanduser(text))
    if "$" in text:
        raise ValueError(f"launch.scratch={scratch} has a variable that is not set here")
    if not path.is_absolute():
        raise ValueError(f"launch.scratch={scratch} must be an absolute path")
    return path


def _copy_of(plan: Plan, log: EventLog, stop: threading.Event) -> Path:
    """The folder of the copy. Raises _NoCopyError, ModelError and OSError where there can be none, and StoppedError."""
    planned = str(plan.recipe["model"])
    try:
        scratch = scratch_folder(str(plan.config.launch.scratch))
    except ValueError as error:
        raise _NoCopyError(error) from error
    if not planned.startswith(VERSION):
        raise _NoCopyError("an earlier version of batchgen planned the run, by all files in the model's folder")
    root = scratch / FOLDER
    target = root / planned.removeprefix(VERSION)
    wanted = files_in(target, plan.config.model)
    if _is_ours(root) and _is_whole(wanted, planned):
        return target
    model = locate(plan.config.model)
    files = _files(model)
    _refuse_same_disk(files, scratch)
    scratch.mkdir(exist_ok=True)
    root.mkdir(exist_ok=True)
    if not _is_ours(root):
        raise _NoCopyError(f"{root} belongs to another user")
    log.add("staging", bytes=sum(path.stat().st_size for path in files.values()), folder=str(target))
    with _locked(root / f"{target.name}.lock", stop):
        if not _is_whole(wanted, planned):
            _remove_unfinished(root, target.name)
            _make(files, replace(wanted, folder=_draft(target)), planned, target, stop)
    return target


def _is_ours(root: Path) -> bool:
    """Whether it is a folder of this user: nobody else can have put a model there."""
    try:
        facts = os.lstat(root)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


def _is_whole(copy: ModelFiles, planned: str) -> bool:
    """Whether the copy is there and its files are the planned ones: clean-ups of scratch remove single files."""
    try:
        return copy.folder.is_dir() and fingerprint_model(copy) == planned
    except (ModelError, OSError):
        return False


def _files(model: ModelFiles) -> dict[Path, Path]:
    """The files that a run loads, by their places in the model's folder."""
    paths = [model.folder / INDEX_FILE, *(path for part in model.parts() for path in part.files.values())]
    return {path.relative_to(model.folder): path for path in paths}


def _refuse_same_disk(files: Mapping[Path, Path], scratch: Path) -> None:
    """Raise _NoCopyError where a copy would be as far away as the model, or there is no room for it."""
    there = scratch if scratch.exists() else scratch.parent
    if {_device(path) for path in files.values()} == {_device(there)}:
        raise _NoCopyError("launch.scratch is on the same file system as the model")
    wanted_bytes = sum(path.stat().st_size for path in files.values())
    if (free_bytes := shutil.disk_usage(there).free) < _MARGIN * wanted_bytes:
        raise _NoCopyError(f"the model takes {gib(wanted_bytes)}, and {there} has only {gib(free_bytes)} free")


def _device(path: Path) -> int:
    return path.stat().st_dev


@contextmanager
def _locked(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold a lock among the processes of this machine. Raises StoppedError when told to stop while another holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(stop, _POLL_S)
        yield
    finally:
        os.close(fd)


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise StoppedError("stopped while the model was copied to launch.scratch; the same command goes on")


def _draft(target: Path) -> Path:
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}")


def _remove_unfinished(root: Path, name: str) -> None:
    """Remove what copiers of this model left that were killed, and a copy that is not whole."""
    for path in root.iterdir():
        if path.is_dir() and (path.name == name or path.name.startswith(f"{name}.")):
            shutil.rmtree(path)


def _make(files: Mapping[Path, Path], draft: ModelFiles, planned: str, target: Path, stop: threading.Event) -> None:
    try:
        for place, source in files.items():
            _copy(source, draft.folder / place, stop)
        for folder in {(draft.folder / place).parent for place in files}:
            sync_directory(folder)
        if fingerprint_model(draft) != planned:
            raise _NoCopyError("the model is not the one that this run was planned with")
        os.rename(draft.folder, target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(draft.folder, ignore_errors=True)


def _copy(source: Path, target: Path, stop: threading.Event) -> None:
    """Copy what `source` holds, also where it is a link into a cache, and flush it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("xb") as new:
        while piece := old.read(_PIECE_BYTES):
            _wait(stop, 0.0)
            new.write(piece)
        new.flush()
        os.fsync(new.fileno())
