"""File operations that must survive a crash. All durable writes of a run go through this module.

Names are put in place by `put` (a hard link: it appears whole or not at all, and never replaces a file) or by
`replace` (for files that only ever restate what others prove). A failed fsync is never tried again on the same
file: after it, the pages are marked clean and a second fsync proves nothing (Rebello et al., USENIX ATC 2020).
"""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")
_READ_BYTES = 1 << 20
_TRIES = 3  # another process may sweep the temporary file away
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}(\.2)?")
NO_LINK_ERRNOS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def create(path: Path) -> int:
    """Create `path` and open it for writing and reading; return the descriptor. Raises FileExistsError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o644)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(path: Path) -> bytes:
    """All of a file, in as few calls as it takes: each of them is a round trip on a network file system."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def read_fresh(path: Path) -> bytes | None:
    """A file that another machine may have written just now; None where it is not there, or cannot be read now."""
    with suppress(OSError):  # a network file system asks its server again when a directory is opened
        os.close(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    with suppress(OSError):
        return path.read_bytes()
    return None


def sync(fd: int) -> None:
    """Flush the file behind `fd` to the disk."""
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Flush the names in directory `path` to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file and fsync it; its name is durable only after `sync_directory`."""
    fd = create(path)
    try:
        write_all(fd, data)
        sync(fd)
    finally:
        os.close(fd)


def put(source: Path, target: Path) -> bool:
    """Give the file `source` the name `target` too. False if `target` already exists; nothing is replaced.

    On a file system without hard links a copy is renamed instead, which is safe only for a single writer.
    `supports_link` finds that out when a run starts.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return _is_same(source, target)
    except OSError as error:
        if error.errno not in NO_LINK_ERRNOS:
            raise
        if target.exists():
            return False
        _put_copy(source, target)
    return True


def _is_same(source: Path, target: Path) -> bool:
    """Whether `target` is `source`: NFS may make a link, lose the answer, and then report that the name exists."""
    try:
        return target.samefile(source)
    except FileNotFoundError:
        return False


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # a name that `remove_temporaries` knows


def _put_copy(source: Path, target: Path) -> None:
    temporary = _temporary_beside(target)
    shutil.copyfile(source, temporary)
    with temporary.open("rb+") as file:
        sync(file.fileno())
    os.rename(temporary, target)


def put_over(source: Path, target: Path) -> None:
    """Give the file `source` the name `target` too, in place of a file that has it. Raises FileNotFoundError."""

    def act(temporary: Path) -> None:
        put(source, temporary)
        os.replace(temporary, target)

    _unless_swept(target, act)


def move(source: Path, target: Path) -> None:
    """Give `source` the name `target` instead, durably. A symbolic link is moved itself. Raises FileExistsError."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)
    sync_directory(target.parent)
    sync_directory(source.parent)


def new_directory(parent: Path) -> Path:
    """Make the first of `parent`/0001, 0002, ... that does not exist yet, durably."""
    parent.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = parent / f"{number:04d}"
        with suppress(FileExistsError):
            path.mkdir()
            break
    sync_directory(parent)
    sync_directory(parent.parent)
    return path


def put_aside(path: Path, parent: Path) -> None:
    """Give the file `path` a second name in a new directory of `parent`, durably, so that `path` can be replaced."""
    place = new_directory(parent)
    put(path, place / path.name)
    sync_directory(place)


def is_plain(path: Path) -> bool:
    """Whether `path` is a regular file. A symbolic link is not followed and does not count."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def put_new(path: Path, data: bytes) -> bool:
    """Write `data` to a temporary file, then `put` it at `path`. False if `path` already exists."""
    return _unless_swept(path, lambda temporary: _put_new(temporary, path, data))


def _put_new(temporary: Path, path: Path, data: bytes) -> bool:
    try:
        write_new(temporary, data)
        created = put(temporary, path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return created


def _unless_swept(path: Path, act: Callable[[Path], T]) -> T:
    """What `act` returns for a temporary file beside `path`. It is tried again if another process removed that file."""
    for _ in range(_TRIES):
        temporary = _temporary_beside(path)
        with suppress(FileNotFoundError):
            return act(temporary)
    return act(_temporary_beside(path))


def replace(path: Path, data: bytes, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part.

    With `durable` false nothing is flushed to the disk. That is for files that only help, like leases.
    """
    _swap(path, lambda temporary: write_new(temporary, data) if durable else temporary.write_bytes(data))
    if durable:
        sync_directory(path.parent)


def replace_by(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file beside `path`, and then give it that name, in place of an older one.

    It is for content that memory does not hold and that can be made again: nothing is flushed to the disk.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    _swap(path, fill)


def _swap(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` make a file beside `path`, and give it that name. Nothing is left of one that could not be made."""

    def act(temporary: Path) -> None:
        try:
            fill(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    _unless_swept(path, act)


def supports_link(directory: Path) -> bool:
    """Try whether the file system of `directory` has hard links (some network file systems and FAT do not)."""
    source = directory / f".link.{uuid.uuid4().hex}"
    target = source.with_name(source.name + ".2")
    write_new(source, b"")
    try:
        os.link(source, target)
        target.unlink(missing_ok=True)
    except FileNotFoundError:  # swept away by another process, which is finishing the run
        return supports_link(directory)
    except OSError as error:
        if error.errno not in NO_LINK_ERRNOS:
            raise
        return False
    finally:
        source.unlink(missing_ok=True)
    return True


def remove_temporaries(directory: Path) -> None:
    """Remove the temporary files that interrupted calls of this module left in `directory`, and nothing else."""
    for path in directory.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_unless_known(path: Path) -> str:
    """The same; in this process, a file is read again only where it is another or its size or time has changed."""
    facts = path.stat()
    return _sha256_of(path, facts.st_ino, facts.st_mtime_ns, facts.st_size)


@lru_cache(4096)
def _sha256_of(path: Path, inode: int, written_ns: int, size_bytes: int) -> str:
    return sha256_file(path)


def to_json(value: Any) -> str:
    """One line of JSON: ASCII, no NaN, keys in the given order. The same value gives the same line everywhere."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def seal(record: Mapping[str, Any]) -> bytes:
    """The record as one JSON line that ends with the SHA-256 of all before it; see `unseal`."""
    body = to_json(record)
    return f'{body[:-1]},"checksum":"{sha256_bytes(body.encode())}"}}\n'.encode()


def unseal(line: bytes) -> dict[str, Any] | None:
    """The record that `seal` wrote, without its checksum; None if the line is torn, changed or not a record."""
    head, found, tail = line.rpartition(b',"checksum":"')
    if not found or tail != f'{sha256_bytes(head + b"}")}"}}\n'.encode():
        return None
    record = json.loads(head + b"}")
    return record if isinstance(record, dict) else None
