"""The file system of a run: does it do what the commit of shards relies on, how much room is there, and whose clock?"""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batchgen.files import NO_LINK_ERRNOS, create, sync_directory, write_new
from batchgen.machine.mounts import is_local, kind_of
from batchgen.site.findings import FAIL, OK, WARN, Finding
from batchgen.units import GIB, duration, gib

_LITTLE_BYTES, _LITTLE_FILES = 5 * GIB, 20_000
_NO_BYTES, _NO_FILES = 256 << 20, 100
_CLOCKS_DIFFER_S = 2.0
_PREFIX = ".batchgen-doctor-"


def existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there. Raises NotADirectoryError for a file."""
    there = path.expanduser().absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is no directory")
    return there


def check_writes(path: Path, topic: str, key: str) -> Iterator[Finding]:
    """Whether files can be made in a directory, or where it is to be made. `key`: what sets another one."""
    place = existing(path)
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as folder:
            write_new(Path(folder) / "new", b"batchgen")
    except OSError as error:
        said = f"{place} cannot be written to ({error.strerror})"
        yield Finding(FAIL, topic, said, f"give yourself leave to write there, or set {key}")
    else:
        yield Finding(OK, topic, f"{place} can be written to")


def check_commit(path: Path, many: bool) -> Iterator[Finding]:
    """Whether the file system of a run does what the commit of a shard relies on. `many`: several workers share it."""
    place = existing(path)
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as folder:
            yield from _commit(Path(folder), place, many)
    except OSError as error:
        said = f"{place}: {error.strerror or error}"
        yield Finding(FAIL, "run files", said, "set run_dir=DIR to a directory that can be written to")


def _commit(folder: Path, place: Path, many: bool) -> Iterator[Finding]:
    first, second = folder / "first", folder / "second"
    write_new(first, b"one")
    write_new(second, b"two")
    sync_directory(folder)
    problems = [problem for problem in (_renames(folder, second), _creates_alone(first)) if problem]
    linked = _links(first, folder / "linked", second)
    if linked == "":
        problems.append("link() replaced a file that was there")
    for problem in problems:
        yield Finding(FAIL, "run files", f"{place}: {problem}", "set run_dir=DIR to a directory on another file system")
    if linked:
        advice = "set run_dir=DIR to a directory on another file system" + ("" if many else ", if several are to work")
        yield Finding(FAIL if many else WARN, "run files", f"{place}: {linked}; one worker may use it", advice)
    elif not problems:
        yield Finding(OK, "run files", f"{place}: fsync, link, rename and exclusive creation do what they must")


def _renames(folder: Path, second: Path) -> str | None:
    moved = folder / "moved"
    write_new(moved, b"new")
    os.replace(moved, second)
    return None if second.read_bytes() == b"new" and not moved.exists() else "a rename does not replace a file"


def _creates_alone(first: Path) -> str | None:
    try:
        os.close(create(first))
    except FileExistsError:
        return None
    return "a file that is there can be created again (O_EXCL)"


def _links(source: Path, target: Path, other: Path) -> str | None:
    """Why link() cannot be used; "" where it replaces files, None where all is well."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK_ERRNOS:
            raise
        return f"it has no hard links ({error.strerror})"
    if not target.samefile(source):
        return "a hard link is not the same file"
    try:
        os.link(other, target)
    except FileExistsError:
        return None
    return ""


def check_room(path: Path) -> Iterator[Finding]:
    """The kind of the file system of a run, and what is free on it."""
    place = existing(path)
    facts = os.statvfs(place)
    free_bytes = facts.f_bavail * facts.f_frsize
    counts_files = facts.f_files > 0  # some file systems have no limit
    said = f"{kind_of(place) or 'unknown file system'} at {place}, {gib(free_bytes)} free"
    said += f", room for {facts.f_favail:,} files" if counts_files else ""
    few_files = facts.f_favail if counts_files else _LITTLE_FILES
    if free_bytes < _NO_BYTES or few_files < _NO_FILES:
        yield Finding(FAIL, "disk", said, "make room, or set run_dir=DIR to a directory on another disk")
    elif free_bytes < _LITTLE_BYTES or few_files < _LITTLE_FILES:
        yield Finding(WARN, "disk", said, "see whether that is enough: a dry run says what the job needs")
    else:
        yield Finding(OK, "disk", said)


def check_clock(path: Path) -> Iterator[Finding]:
    """Whether this machine's clock and that of the file server agree."""
    place = existing(path)
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as folder:
            before_s = time.time()
            write_new(Path(folder) / "now", b"now")
            stamped_s = (Path(folder) / "now").stat().st_mtime
            after_s = time.time()
    except OSError:
        return  # that is told by the others
    ahead_s = max(before_s - stamped_s, stamped_s - after_s, 0.0) * (1 if stamped_s < before_s else -1)
    who = socket.gethostname()
    if abs(ahead_s) > _CLOCKS_DIFFER_S:
        said = f"{who} is {duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the file server"
        advice = "let chrony or another NTP client set it; no work is lost by it, but launch.stop_at and all times in "
        yield Finding(WARN, "clock", said, advice + "logs go by it")
        return
    whose = "files are stamped by this machine" if is_local(kind_of(place)) else "it agrees with the file server's"
    yield Finding(OK, "clock", f"{time.strftime('%Y-%m-%d %H:%M:%S %z')} on {who}; {whose}")
