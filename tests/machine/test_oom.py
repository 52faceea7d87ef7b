"""The kernel's counters of processes that it ended for lack of memory."""

from pathlib import Path

import pytest

from batchgen.machine import host, oom


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "_MOUNT", tmp_path / "fs")
    monkeypatch.setattr(oom, "_VMSTAT", tmp_path / "vmstat")
    (tmp_path / "fs" / "job").mkdir(parents=True)
    return tmp_path / "fs"


def test_where_nothing_tells_there_are_none(mount: Path) -> None:
    assert oom.kills() == 0


def test_the_counters_of_control_groups_come_before_that_of_the_machine(mount: Path) -> None:
    (mount.parent / "vmstat").write_text("nr_free_pages 12\noom_kill 7\n")
    assert oom.kills() == 7
    (mount.parent / "cgroup").write_text("0::/job\n")
    assert oom.kills() == 7
    (mount / "job" / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert oom.kills() == 2


def test_the_first_version_has_its_own_file(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("4:memory:/job\n")
    (mount / "memory" / "job").mkdir(parents=True)
    (mount / "memory" / "job" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert oom.kills() == 5


def test_the_real_counters_can_be_read() -> None:
    assert oom.kills() >= 0
