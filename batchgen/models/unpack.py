"""A model in one file is unpacked once into the cache, in the diffusers layout; from then on it is a folder.

The conversion needs torch and runs in a process of its own, batchgen.pipeline.convert. A folder is made under another
name, flushed and then renamed, so that there is never half of one under the name that runs use.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchgen.console import say
from batchgen.errors import ModelError
from batchgen.files import sync_directory, to_json, write_new
from batchgen.machine.versions import versions
from batchgen.models.aside import ask
from batchgen.models.checkpoint import Checkpoint
from batchgen.places import cache_dir
from batchgen.units import gib

SOURCE_FILE = "source.json"
CONVERT_COMMAND = [sys.executable, "-m", "batchgen.pipeline.convert"]
# Raised when the conversion gives other files: what was unpacked before is then not used.
_WAY_OF_CONVERTING = 1
_MARGIN = 1.05  # of the room that it needs


@dataclass(frozen=True, slots=True)
class Piece:
    """A part to make: its class in a library, its configuration, and where its tensors are in the file."""

    library: str
    kind: str
    config: dict[str, Any]
    prefix: str
    names: list[str]


def unpacked(
    checkpoint: Checkpoint, pieces: Mapping[str, Piece], more: Mapping[str, bytes], make: bool | None
) -> Path | None:
    """The folder with these parts of the file, and with the further files `more`; None if it is not there yet.

    With `make` it is made; with None it is only tried whether it could be. Raises ModelError where the file is not what
    its names promise or there is no room, and OSError.
    """
    facts = [_WAY_OF_CONVERTING, checkpoint.digest(), {name: [one.kind, one.config] for name, one in pieces.items()}]
    key = hashlib.sha256(to_json(facts).encode())
    for name, data in sorted(more.items()):
        key.update(to_json([name, len(data)]).encode() + data)
    target = cache_dir() / "models" / key.hexdigest()[:32]
    if (target / SOURCE_FILE).is_file():
        return target
    if make is None:
        _try(checkpoint, pieces, target.name)
    if make:
        _make(checkpoint, pieces, more, target)
    return target if make else None


def _try(checkpoint: Checkpoint, pieces: Mapping[str, Piece], name: str) -> None:
    """Raise ModelError where the file could not be unpacked. What is good is noted in the cache, as `name`."""
    noted = hashlib.sha256(to_json([name, versions()]).encode()).hexdigest()
    note = cache_dir() / "checks" / f"unpacks-{noted[:32]}"
    if note.is_file():
        return
    with TemporaryDirectory(prefix="batchgen-") as folder:
        _furnish(pieces, Path(folder))
        _convert(checkpoint, pieces, Path(folder), is_trial=True)
    with suppress(OSError):  # without the cache, the next command tries again
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _make(checkpoint: Checkpoint, pieces: Mapping[str, Piece], more: Mapping[str, bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < _MARGIN * checkpoint.bytes:
        raise ModelError(
            f"{checkpoint.path} takes {gib(checkpoint.bytes)} when it is unpacked, and {target.parent} has only "
            f"{gib(free_bytes)} free: make room, or set BATCHGEN_CACHE to a folder elsewhere"
        )
    with _locked(target.with_suffix(".lock")):
        if (target / SOURCE_FILE).is_file():  # another command was first
            return
        for left in target.parent.glob(f"{target.name}.*.draft"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        say(f"{checkpoint.path} is unpacked once, which takes {gib(checkpoint.bytes)} of disk: {target}")
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.draft")
        try:
            _fill(checkpoint, pieces, more, draft)
            shutil.rmtree(target, ignore_errors=True)  # what a clean-up of the cache left of it
            os.rename(draft, target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _fill(checkpoint: Checkpoint, pieces: Mapping[str, Piece], more: Mapping[str, bytes], draft: Path) -> None:
    for name, data in more.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        write_new(draft / name, data)
    _furnish(pieces, draft)
    answer = _convert(checkpoint, pieces, draft, is_trial=False)
    source = {
        "file": str(checkpoint.path.absolute()),
        "bytes": checkpoint.path.stat().st_size,
        "sha256": answer["sha256"],
        "title": checkpoint.title,
        "parts": sorted(pieces),
        "versions": versions(),
    }
    write_new(draft / SOURCE_FILE, (json.dumps(source, indent=2) + "\n").encode())
    for folder in [draft, *(path for path in draft.iterdir() if path.is_dir())]:
        sync_directory(folder)


def _furnish(pieces: Mapping[str, Piece], folder: Path) -> None:
    for name, piece in pieces.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_new(folder / name / "config.json", (json.dumps(piece.config, indent=2) + "\n").encode())


def _convert(checkpoint: Checkpoint, pieces: Mapping[str, Piece], draft: Path, is_trial: bool) -> dict[str, Any]:
    wanted = {
        name: {"library": one.library, "kind": one.kind, "prefix": one.prefix, "names": one.names}
        for name, one in pieces.items()
    }
    places = {"file": str(checkpoint.path.absolute()), "folder": str(draft.absolute())}
    request = {**places, "pieces": wanted, "is_trial": is_trial}
    try:
        return ask(CONVERT_COMMAND, request, f"{checkpoint.path} could not be unpacked")
    except ModelError as error:
        raise ModelError(f"{checkpoint.path} cannot be unpacked: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine, where the file system has locks: it saves double work only."""
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
