"""How much of the host a worker may page-lock: within its control groups, and its part among the workers here."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from batchgen.machine import host
from tests.memory.cards import GIB


def group(folder: Path, names: tuple[str, str, str], limit: str, used_bytes: int, files_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used_bytes}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {files_bytes}\nfile 7\n")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    memory = SimpleNamespace(available=100 * GIB, total=128 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(host, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "_MOUNT", tmp_path / "fs")
    monkeypatch.delenv(host.WORKERS_HERE, raising=False)
    return tmp_path / "fs"


def test_without_control_groups_it_is_what_is_available(mount: Path) -> None:
    assert host.pinnable_bytes() == 100 * GIB - int(0.05 * 128 * GIB)


def test_workers_on_one_machine_share_it(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = host.pinnable_bytes()
    for told, parts in (("8", 8), ("1", 1), ("0", 1), ("", 1), ("many", 1)):
        monkeypatch.setenv(host.WORKERS_HERE, told)
        assert host.pinnable_bytes() == alone // parts


def test_a_limit_of_the_second_version_holds_its_own_or_one_around_it(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    group(mount / "slurm" / "job_7" / "step_0", host._V2, "max", 9 * GIB, 0)
    group(mount / "slurm" / "job_7", host._V2, str(32 * GIB), 12 * GIB, 2 * GIB)
    reserve = int(0.05 * 128 * GIB)
    assert host.pinnable_bytes() == 22 * GIB - reserve
    group(mount / "slurm" / "job_7" / "step_0", host._V2, str(16 * GIB), 9 * GIB, 0)
    assert host.pinnable_bytes() == 7 * GIB - reserve


def test_a_container_of_the_first_version_sees_its_own_at_the_mount(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("9:name=systemd:/\n4:cpu,memory:/docker/abc\n3:cpuset:/\n0::/\n")
    group(mount / "memory", host._V1, str(20 * GIB), 5 * GIB, 1 * GIB)
    assert host.pinnable_bytes() == 16 * GIB - int(0.05 * 128 * GIB)


def test_a_limit_that_is_used_up_leaves_nothing(mount: Path) -> None:
    (mount.parent / "cgroup").write_text("0::/\n")
    group(mount, host._V2, str(GIB), 2 * GIB, 0)
    assert host.pinnable_bytes() == 0
