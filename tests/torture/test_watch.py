"""The tools of the torture tests: they see every operation, and model what a power cut leaves."""

import random
from pathlib import Path

import batchgen
from tests.torture.disk import Directory, Disk, File

CHOSEN = random.Random(3)


def played(*events):
    disk = Disk("/base")
    for event in events:
        disk.play(event)
    return disk


CREATE = ("create", "/base/a", "h", False)
WRITE = ("write", "h", 0, "x" * 1000)
SYNC = ("fsync", "h", "site")
SYNC_BASE = (("opendir", "/base", "d"), ("fsync", "d", "site"))


def left(disk, lasting=0.0, ways=("none",)):
    return disk.tree(CHOSEN, lasting, ways)


def test_what_was_not_synced_may_be_gone():
    assert left(played(CREATE, WRITE, SYNC)) == {}
    assert left(played(CREATE, WRITE, *SYNC_BASE)) == {"a": b""}
    assert left(played(CREATE, WRITE, SYNC, *SYNC_BASE)) == {"a": b"x" * 1000}
    assert left(played(CREATE, WRITE), 1.0, ("all",)) == {"a": b"x" * 1000}


def test_a_rename_is_there_or_not_and_its_file_keeps_what_it_has():
    disk = played(CREATE, WRITE, *SYNC_BASE, ("rename", "/base/a", "/base/b"))
    assert left(disk) == {"a": b""}
    assert left(disk, 1.0) == {"b": b""}


def test_bytes_are_torn_at_sectors_or_read_as_zeros_and_durable_ones_stay():
    file = File(b"d" * 600, bytearray(b"d" * 600 + b"n" * 1000))
    assert {len(file.after_cut(CHOSEN, "torn")) for _ in range(50)} == {600, 1024, 1536}
    assert file.after_cut(CHOSEN, "zeros") == b"d" * 600 + bytes(1000)
    assert all(file.after_cut(CHOSEN, way)[:600] == b"d" * 600 for way in ("none", "torn", "zeros", "holes"))


def test_a_directory_that_is_lost_takes_its_files_along():
    disk = played(("mkdir", "/base/m"), ("create", "/base/m/a", "h", False), SYNC, ("opendir", "/base/m", "d"),
                  ("fsync", "d", "site"))  # fmt: skip
    assert left(disk) == {}
    assert isinstance(disk.root.names()["m"], Directory)


def test_the_package_changes_files_by_watched_functions_alone():
    unwatched = ("pwrite", "writev", "sendfile", "truncate", "symlink", "copy_file_range", "fdatasync", "O_DSYNC")
    for path in sorted(Path(batchgen.__file__).parent.rglob("*.py")):
        text = path.read_text()
        assert [name for name in unwatched if f"os.{name}" in text] == [], path
