"""Files are read into the host's cache by several threads, while those who need them have other things to do."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from batchgen.machine.host import pinnable_bytes

_PIECE_BYTES = 8 << 20
_THREADS = 4
_SHARE = 0.5  # of the memory that is free


def read_ahead(paths: Iterable[Path]) -> list[threading.Thread]:
    """Begin to read the files, in this order, as far as half of the host's free memory allows; return who reads.

    Pieces that are in the cache are passed over. A file that cannot be read is left to those who need it. Nobody waits
    for it at the end of the process.
    """
    pieces: SimpleQueue[tuple[Path, int]] = SimpleQueue()
    for piece in _pieces(paths, int(_SHARE * pinnable_bytes())):
        pieces.put(piece)
    threads = [threading.Thread(target=_read, args=(pieces,), daemon=True, name="read-ahead") for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    return threads


def _pieces(paths: Iterable[Path], room_bytes: int) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with suppress(OSError):
            size_bytes = path.stat().st_size
            room_bytes -= size_bytes
            if room_bytes < 0:
                return
            yield from ((path, offset) for offset in range(0, size_bytes, _PIECE_BYTES))


def _read(pieces: "SimpleQueue[tuple[Path, int]]") -> None:
    room = bytearray(_PIECE_BYTES)
    with suppress(Empty):
        while True:
            path, offset = pieces.get_nowait()
            with suppress(OSError), path.open("rb", buffering=0) as file:
                if not _is_cached(file.fileno(), offset):
                    os.preadv(file.fileno(), [room], offset)


def _is_cached(fd: int, offset: int) -> bool:
    """Whether the first byte there is in the cache, by which the piece is judged."""
    nowait = getattr(os, "RWF_NOWAIT", None)
    if nowait is None:
        return False
    try:
        return os.preadv(fd, [bytearray(1)], offset, nowait) == 1
    except OSError:  # it is not, or this file system does not say
        return False
