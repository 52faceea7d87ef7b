"""How much of the host a worker may have: within its control groups and limits, and its part among the workers."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from batchgen.machine import host
from batchgen.machine.host import Room
from tests.memory.cards import GIB


def group(folder: Path, names: tuple[str, str, tuple[str, str]], limit: str, used_bytes: int, files_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used_bytes}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2][0]} {files_bytes}\nfile 7\n")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    memory = SimpleNamespace(available=100 * GIB, total=128 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=3 * GIB))
    monkeypatch.setattr(resource, "getrlimit", lambda one: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(host, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "_MOUNT", tmp_path / "fs")
    for name in (host.WORKERS_HERE, host.ROOM_HERE):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "fs"


RESERVE = int(0.05 * 128 * GIB)


def test_without_control_groups_it_is_what_is_available_and_swap_cannot_be_page_locked(mount: Path) -> None:
    assert host.room_for(1) == Room(103 * GIB, 100 * GIB - RESERVE, 1)


def test_workers_on_one_machine_share_it(mount: Path) -> None:
    assert host.room_for(8) == Room(103 * GIB // 8, (100 * GIB - RESERVE) // 8, 8)


def test_what_workers_hold_that_have_begun_is_theirs(mount: Path) -> None:
    own = host.room_for(1, [os.getpid()])
    assert 0 < own.held_bytes - 103 * GIB == own.pinned_bytes - (100 * GIB - RESERVE) < 8 * GIB
    assert host.room_for(2, [2**22 + 1]) == host.room_for(2), "one that has ended holds nothing"


def test_a_worker_has_what_its_launcher_told(mount: Path) -> None:
    told = host.room_for(4)
    assert host.as_told(told)[host.WORKERS_HERE] == "4"
    assert host.own_room(host.as_told(told)) == replace(told, workers=1), "the number is that of this process"


@pytest.mark.parametrize("told", ["", "many", "1", "1 2 3"])
def test_one_that_was_not_told_finds_out_and_what_it_holds_counts(
    mount: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv(host.WORKERS_HERE, "2")
    room = host.own_room({host.ROOM_HERE: told})
    assert 0 < 2 * room.held_bytes - 103 * GIB < 8 * GIB, "this process itself"
    assert room.workers == 2
    for wrong, parts in (("0", 1), ("", 1), ("many", 1)):
        monkeypatch.setenv(host.WORKERS_HERE, wrong)
        assert host.workers_here() == parts


def test_a_limit_of_the_second_version_holds_its_own_or_one_around_it(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    group(mount / "slurm" / "job_7" / "step_0", host._FILES[False], "max", 9 * GIB, 0)
    group(mount / "slurm" / "job_7", host._FILES[False], str(32 * GIB), 12 * GIB, 2 * GIB)
    assert host.room_for(1) == Room(22 * GIB, 22 * GIB - RESERVE)
    group(mount / "slurm" / "job_7" / "step_0", host._FILES[False], str(16 * GIB), 9 * GIB, 0)
    assert host.room_for(1) == Room(7 * GIB, 7 * GIB - RESERVE)


def test_pages_of_files_that_were_read_twice_may_be_dropped_too(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("0::/\n")
    group(mount, host._FILES[False], str(32 * GIB), 30 * GIB, 0)
    (mount / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\nactive_file {20 * GIB}\n")
    assert host.room_for(1).held_bytes == 23 * GIB


def test_a_container_of_the_first_version_sees_its_own_at_the_mount(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n3:cpuset:/\n0::/\n")
    group(mount / "memory", host._FILES[True], str(20 * GIB), 5 * GIB, 1 * GIB)
    assert host.room_for(1).held_bytes == 16 * GIB


def test_a_limit_that_is_used_up_leaves_nothing(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("0::/\n")
    group(mount, host._FILES[False], str(GIB), 2 * GIB, 0)
    assert host.room_for(1) == Room(0, 0)


def test_the_limits_of_a_process_hold_for_each_worker() -> None:
    code = "from batchgen.machine.host import room_for; print(room_for(2).held_bytes)"
    limited = ["sh", "-c", 'ulimit -d 300000; exec "$@"', "-", sys.executable, "-c", code]
    done = subprocess.run(limited, capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) == 300000 << 10
