"""The checks of a run's file system, on a real one and with made-up faults; nothing is left behind."""

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.site import disk
from batchgen.site.disk import check_clock, check_commit, check_room, check_writes, existing
from batchgen.site.findings import FAIL, OK, WARN


def levels(found: Any) -> list[str]:
    return [finding.level for finding in found]


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_sound_file_system(tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "run"
    for found in (check_commit(run_dir, True), check_clock(run_dir), check_writes(run_dir, "cache", "X")):
        assert levels(found) == [OK]
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_one_worker_may_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    [many], [one] = check_commit(tmp_path, True), check_commit(tmp_path, False)
    assert (many.level, one.level) == (FAIL, WARN)
    assert "no hard links" in many.what and "run_dir=DIR" in many.advice
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_replaces_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def replace_by_link(source: Path, target: Path) -> None:
        target.unlink(missing_ok=True)
        link(source, target)

    monkeypatch.setattr(os, "link", replace_by_link)
    [found] = check_commit(tmp_path, True)
    assert found.level == FAIL and "replaced a file" in found.what


def test_exclusive_creation_and_renames_that_do_not_work_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(disk, "create", lambda path: os.open(path, os.O_RDWR))
        assert "O_EXCL" in next(iter(check_commit(tmp_path, True))).what
    monkeypatch.setattr(os, "replace", lambda *_: None)
    assert "rename" in next(iter(check_commit(tmp_path, True))).what


def test_a_disk_that_is_full_or_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_new", full)
    [found] = check_commit(tmp_path, True)
    assert found.level == FAIL and "No space left" in found.what
    assert levels(check_writes(tmp_path, "cache", "X")) == [FAIL] and list(check_clock(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free_bytes", "files", "free_files", "level"),
    [
        (100 << 30, 10**6, 10**6, OK),
        (100 << 30, 0, 0, OK),  # no limit of files
        (1 << 30, 10**6, 10**6, WARN),
        (100 << 30, 10**6, 5000, WARN),
        (1 << 20, 10**6, 10**6, FAIL),
        (100 << 30, 10**6, 3, FAIL),
    ],
)
def test_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, files: int, free_files: int, level: str
) -> None:
    facts = SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096, f_files=files, f_favail=free_files)
    monkeypatch.setattr(os, "statvfs", lambda _: facts)
    [found] = check_room(tmp_path)
    assert found.level == level and "free" in found.what


@pytest.mark.parametrize(("ahead_s", "said"), [(90.0, "1m30s ahead of"), (-45.0, "45s behind")])
def test_a_clock_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, said: str) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead_s)
    [found] = check_clock(tmp_path)
    assert found.level == WARN and said in found.what


def test_the_place_is_the_nearest_directory_that_is_there(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        existing(tmp_path / "file" / "run")
