"""The ends of files: long ones in two reads, several at the same time, and nothing that is no plain file."""

import os
from pathlib import Path

import pytest

from batchgen.shards import ends as module
from batchgen.shards.ends import HEAD_BYTES, TAIL_BYTES, overlapped, read_ends


@pytest.mark.parametrize("size", [0, 5, HEAD_BYTES + TAIL_BYTES, 1 << 17, (1 << 17) + 1, 1 << 20])
def test_the_ends_of_a_file(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "log", bytes(place % 251 for place in range(size))
    path.write_bytes(data)
    os.utime(path, (5, 7))
    ends = read_ends(path)
    assert ends is not None and ends.written_s == 7
    if size <= HEAD_BYTES + TAIL_BYTES:
        assert (ends.head, ends.tail) == (data, b"")
    else:
        assert (ends.head, ends.tail) == (data[:HEAD_BYTES], data[-TAIL_BYTES:])


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    assert read_ends(tmp_path / "gone") is None
    os.mkfifo(tmp_path / "pipe")  # an ordinary open would wait for a writer
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "."):
        with pytest.raises(ValueError, match="is not a plain file"):
            read_ends(tmp_path / name)


def test_several_run_at_the_same_time_and_come_in_order() -> None:
    import threading

    meet = threading.Barrier(module._AT_ONCE, timeout=30)

    def act(item: int) -> int:
        meet.wait()
        return item * item

    assert overlapped(act, range(2 * module._AT_ONCE)) == [item * item for item in range(2 * module._AT_ONCE)]
    assert overlapped(str, []) == []
