"""Files are read into the host's cache by several threads, while those who need them have other things to do."""

import os
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from batchgen.machine.host import room_for

_PIECE_BYTES = 8 << 20
_THREADS = 8
_SHARE = 0.5  # of the memory that is free


def read_ahead(paths: Iterable[Path]) -> list[threading.Thread]:
    """Begin to read the files, in this order, as far as half of the host's free memory allows; return who reads.

    Pieces that are in the cache are passed over. A file that cannot be read is left to those who need it. Nobody waits
    for it at the end of the process.
    """
    reader = _Reader(paths, int(_SHARE * room_for(1).pinned_bytes))
    threads = [threading.Thread(target=reader.read, daemon=True, name="read-ahead") for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    return threads


class _Reader:
    """What is still to be read: the first piece of each file, and all others once its size is known."""

    def __init__(self, paths: Iterable[Path], room_bytes: int) -> None:
        self._left = deque((path, 0) for path in paths)
        self._room_bytes = room_bytes
        self._lock = threading.Lock()

    def read(self) -> None:
        """Read until nothing is left."""
        room = bytearray(_PIECE_BYTES)
        with suppress(IndexError):
            while True:
                path, offset = self._left.popleft()
                with suppress(OSError), path.open("rb", buffering=0) as file:
                    if offset == 0 and not self._admit(path, os.fstat(file.fileno()).st_size):
                        continue
                    if not _is_cached(file.fileno(), offset):
                        os.preadv(file.fileno(), [room], offset)

    def _admit(self, path: Path, size_bytes: int) -> bool:
        """Whether there is room for the file; if so, its other pieces come next."""
        with self._lock:
            if size_bytes > self._room_bytes:
                return False
            self._room_bytes -= size_bytes
        self._left.extendleft((path, offset) for offset in range(_PIECE_BYTES, size_bytes, _PIECE_BYTES))
        return True


def _is_cached(fd: int, offset: int) -> bool:
    """Whether the first byte there is in the cache, by which the piece is judged."""
    nowait = getattr(os, "RWF_NOWAIT", None)
    if nowait is None:
        return False
    try:
        return os.preadv(fd, [bytearray(1)], offset, nowait) == 1
    except OSError:  # it is not, or this file system does not say
        return False
