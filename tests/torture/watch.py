"""The boundary to the file system: every operation that changes what is below a directory, counted and failed.

`install` replaces the functions of `os` that batchgen's file operations end in, and `open`, in this process and in
what is forked from it. Each operation has a number, counted over all processes. One may be made to fail, to write a
part, to succeed and say that it failed, or to be the last thing that the command does. All can be recorded, with
their data, for `disk.py`. No fsync reaches the real disk: what it would have done is what `disk.py` models.
"""

import builtins
import errno
import io
import json
import mmap
import os
import shutil
import signal
import struct
import sys
import threading
from pathlib import Path
from types import FrameType

import batchgen

PACKAGE = Path(batchgen.__file__).parent
TAKES_SPACE = ("create", "write", "fsync", "link", "rename", "mkdir")
# What one operation may be made to do. `full:` lasts from then on; `late`: done, and an error said all the same.
ONCE = ("ENOSPC", "EDQUOT", "EIO", "ESTALE")
FULL = ("full:ENOSPC", "full:EDQUOT")
MODES = (*ONCE, *FULL, "short", "late", "lost", "kill")

_real = {name: getattr(os, name) for name in (
    "open", "close", "write", "fsync", "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "ftruncate",
)}  # fmt: skip
_real_open = io.open
_lock = threading.RLock()
_numbers = mmap.mmap(-1, 64)  # shared with forked processes: operations, images made, names given


class _State:
    base = ""
    mode = ""
    at = -1
    log_fd = -1
    front = 0
    links = True
    paths: dict[int, tuple[str, str]] = {}  # noqa: RUF012
    handles = 0


def operations():
    """How many operations there were since `begin`."""
    return struct.unpack_from("q", _numbers, 0)[0]


def images_made():
    """How many images the engine made since `begin`."""
    return struct.unpack_from("q", _numbers, 8)[0]


def note_images(count):
    """Count images that the engine made."""
    struct.pack_into("q", _numbers, 8, images_made() + count)


def next_number():
    """1, 2, ... over all processes; `begin` does not start it anew."""
    with _lock:
        number = struct.unpack_from("q", _numbers, 16)[0] + 1
        struct.pack_into("q", _numbers, 16, number)
    return number


def begin(base, mode="", at=-1, log=None, links=True):
    """Watch `base` from now on, from operation 0: operation `at` does what `mode` says; record to `log`."""
    _numbers[:16] = bytes(16)
    _State.base = str(base)
    _State.mode, _State.at, _State.links = mode, at, links
    _State.front = os.getpid()
    _State.log_fd = _real["open"](log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if log else -1


def mark(name, *facts):
    """Put into the record that a promise was made."""
    _record("mark", name, *facts)


def _record(*event):
    if _State.log_fd >= 0:
        _real["write"](_State.log_fd, json.dumps(event).encode() + b"\n")


def _below(path, dir_fd=None):
    path = os.fspath(path)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if dir_fd is not None:
        path = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}"
    return path if path.startswith(_State.base + "/") or path == _State.base else None


def _error(name, path):
    code = getattr(errno, name)
    return OSError(code, os.strerror(code), *[path] * (path is not None))


def _step(kind, path, act, *event, data=None):
    """One operation: counted, then done or not; recorded where it was done."""
    with _lock:
        number = operations()
        struct.pack_into("q", _numbers, 0, number + 1)
        mode = _State.mode if number == _State.at else ""
        if _State.mode in FULL and number >= _State.at and kind in TAKES_SPACE:
            mode = _State.mode
        if mode == "kill":
            for pid in {_State.front, os.getpid()} - {os.getpid()}:
                os.kill(pid, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "kill worker" and os.getpid() != _State.front:
            os.kill(os.getpid(), signal.SIGKILL)
        if mode in ("short", *FULL) and kind == "write" and (mode == "short" or number == _State.at):
            return act(data[: max(1, len(data) // 2)])
        if mode in ONCE or mode in FULL:
            raise _error(mode.removeprefix("full:"), None if kind in ("write", "fsync") else path)
        if kind == "write":
            return act(data)
        try:
            done = act()
        except OSError:
            _record("failed", kind)
            raise
        _record(*event)
        if mode == "late":
            if kind in ("create", "opendir"):
                _real["close"](done)
            raise _error("EIO", path)
        if mode == "lost" and kind in ("link", "mkdir"):  # NFS sent it twice, and the answer to the first was lost
            raise _error("EEXIST", path)
        return done


def _open(path, flags, mode=0o777, *, dir_fd=None):
    below = None if isinstance(path, int) else _below(path, dir_fd)
    if below is None:
        return _real["open"](path, flags, mode, dir_fd=dir_fd)
    creates, directory = bool(flags & os.O_CREAT), bool(flags & os.O_DIRECTORY)
    if not creates and not directory and not flags & (os.O_WRONLY | os.O_RDWR):
        return _real["open"](path, flags, mode, dir_fd=dir_fd)
    with _lock:
        _State.handles += 1
        handle = f"{os.getpid()}.{_State.handles}"
        kind = "opendir" if directory else "create"
        truncates = bool(flags & os.O_TRUNC)
        fd = _step(kind, below, lambda: _real["open"](path, flags, mode, dir_fd=dir_fd), kind, below, handle, truncates)
        _State.paths[fd] = (below, handle)
    return fd


def _close(fd):
    _State.paths.pop(fd, None)
    _real["close"](fd)


def _write(fd, data):
    if fd not in _State.paths:
        return _real["write"](fd, data)
    path, handle = _State.paths[fd]

    def act(piece):
        count = _real["write"](fd, piece)
        at = os.lseek(fd, 0, os.SEEK_CUR) - count  # holds for O_APPEND too: the write moves the offset to its end
        _record("write", handle, at, bytes(piece[:count]).decode("latin-1"))
        return count

    return _step("write", path, act, data=memoryview(data))


def _fsync(fd):
    if fd not in _State.paths:
        return None if _State.base else _real["fsync"](fd)
    path, handle = _State.paths[fd]
    return _step("fsync", path, lambda: None, "fsync", handle, _site(path))


def _site(path):
    """Where in batchgen an fsync is asked for, and of what: 'shards.attempt.append work/*.tar'."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if PACKAGE in file.parents and file.name != "files.py":
            break
        frame = frame.f_back
    place = "?"
    if frame is not None:
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        place = f"{module}.{frame.f_code.co_name}"
    names = Path(path).relative_to(_State.base).parts
    last = names[-1] if names else ""
    if "." in last and last.partition(".")[0]:
        last = f"*.{last.rpartition('.')[2]}" if not last.startswith("plan.") else "plan.*"
    if last.startswith("."):
        last = "temporary"
    parent = "plan.*" if len(names) > 1 and names[-2].startswith("plan.") else (names[-2] if len(names) > 1 else "")
    return f"{place} {parent}/{last}"


def _two(kind):
    def act(source, target, **options):
        below = _below(target)
        if below is None:
            return _real[kind](source, target, **options)
        if kind == "link" and not _State.links:
            raise _error("EPERM", below)
        event = "rename" if kind == "replace" else kind
        return _step(event, below, lambda: _real[kind](source, target, **options), event, str(source), below)

    return act


def _one(kind, event):
    def act(path, *arguments, dir_fd=None, **options):
        below = _below(path, dir_fd)
        if below is None:
            return _real[kind](path, *arguments, dir_fd=dir_fd, **options)
        return _step(event, below, lambda: _real[kind](path, *arguments, dir_fd=dir_fd, **options), event, below)

    return act


class _Raw(io.RawIOBase):
    """What `open` writes through, so that its writes are watched too."""

    def __init__(self, fd):
        self._fd = fd

    def writable(self):
        return True

    def write(self, data):
        return os.write(self._fd, data)

    def fileno(self):
        return self._fd

    def close(self):
        if not self.closed:
            super().close()
            os.close(self._fd)


def _open_file(file, mode="r", *arguments, **options):
    below = None if isinstance(file, int) else _below(file)
    if below is None or not set(mode) & set("wax+"):
        return _real_open(file, mode, *arguments, **options)
    flags = {"wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "rb+": os.O_RDWR}[mode]
    return io.BufferedWriter(_Raw(os.open(below, flags | os.O_CLOEXEC, 0o644)))


def install():
    """Put all of it in place, for the rest of this process's life."""
    os.open, os.close, os.write, os.fsync = _open, _close, _write, _fsync
    os.link, os.rename, os.replace = _two("link"), _two("rename"), _two("replace")
    os.unlink = os.remove = _one("unlink", "unlink")
    os.mkdir, os.rmdir = _one("mkdir", "mkdir"), _one("rmdir", "rmdir")
    io.open = builtins.open = _open_file
    setattr(shutil, "_USE_CP_SENDFILE", False)  # noqa: B010  (else copies would pass it by)


def forbid_truncate():
    """batchgen never shortens a file; `disk.py` does not model it."""

    def refuse(*_):
        raise AssertionError("ftruncate is not watched")

    os.ftruncate = os.truncate = refuse
