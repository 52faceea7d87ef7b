"""Reading the ends of many small files at once.

On a network file system each call takes milliseconds, whatever it reads. So a file is opened and read once, twice
where it is long, and several files are read at the same time.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")
HEAD_BYTES, TAIL_BYTES = 8 << 10, 24 << 10
_AT_ONE_STROKE_BYTES = 128 << 10  # a server sends as much in one answer
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Ends:
    """What a file begins and ends with, and when it was written, in s since the epoch by the file server's clock.

    `tail` is empty where `head` is all of the file.
    """

    head: bytes
    tail: bytes
    written_s: float


def overlapped(act: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """`act` of each item, in order; several run at the same time. Raises what `act` raises."""
    wanted: Sequence[T] = list(items)
    if len(wanted) < 2:
        return [act(item) for item in wanted]
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted)), "read") as pool:
        return list(pool.map(act, wanted))


def read_ends(path: Path) -> Ends | None:
    """The ends of a file; None where it is gone or cannot be read now. Raises ValueError for what is no plain file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        if path.is_symlink():
            raise ValueError(f"{path} is not a plain file") from None
        return None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is not a plain file")
        size = facts.st_size
        data = os.pread(fd, _AT_ONE_STROKE_BYTES if size <= _AT_ONE_STROKE_BYTES else HEAD_BYTES, 0)
        if size > _AT_ONE_STROKE_BYTES:
            return Ends(data, os.pread(fd, TAIL_BYTES, size - TAIL_BYTES), facts.st_mtime)
        if len(data) <= HEAD_BYTES + TAIL_BYTES:
            return Ends(data, b"", facts.st_mtime)
        return Ends(data[:HEAD_BYTES], data[-TAIL_BYTES:], facts.st_mtime)
    except OSError:
        return None
    finally:
        os.close(fd)
