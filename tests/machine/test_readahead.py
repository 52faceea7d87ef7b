"""Files that are read ahead are in the host's cache, as far as there is room."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.machine import readahead
from batchgen.machine.host import Room
from batchgen.machine.readahead import read_ahead

PIECE = 1 << 16


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The pieces that are read, as none is in the cache: (name of the file, offset)."""
    pieces: list[tuple[str, int]] = []
    real = os.preadv

    def preadv(fd: int, room: list[bytearray], offset: int, *flags: int) -> int:
        if flags:
            raise BlockingIOError
        pieces.append((Path(os.readlink(f"/proc/self/fd/{fd}")).name, offset))
        return real(fd, room, offset)

    monkeypatch.setattr(readahead, "_PIECE_BYTES", PIECE)
    monkeypatch.setattr(os, "preadv", preadv)
    yield pieces


def wait_for_all(paths: list[Path]) -> None:
    for thread in read_ahead(paths):
        thread.join(20)


def test_all_pieces_are_read_and_what_is_not_there_is_passed_over(tmp_path: Path, read: list[tuple[str, int]]) -> None:
    (tmp_path / "a").write_bytes(bytes(2 * PIECE + 1))
    (tmp_path / "b").write_bytes(b"x")
    wait_for_all([tmp_path / "a", tmp_path / "none", tmp_path / "b", tmp_path])
    assert [one for one in sorted(read) if one[0] in "ab"] == [("a", 0), ("a", PIECE), ("a", 2 * PIECE), ("b", 0)]


def test_what_is_in_the_cache_is_not_read_again(
    tmp_path: Path, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(bytes(PIECE))
    monkeypatch.setattr(readahead, "_is_cached", lambda *_: True)
    wait_for_all([tmp_path / "a"])
    assert read == []


def test_it_stops_where_there_is_no_room(
    tmp_path: Path, read: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(PIECE))
    monkeypatch.setattr(readahead, "room_for", lambda _: Room(9 * PIECE, 5 * PIECE))
    monkeypatch.setattr(readahead, "_THREADS", 1)
    wait_for_all([tmp_path / name for name in "abc"])
    assert read == [("a", 0), ("b", 0)]
