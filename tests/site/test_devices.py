"""The checks of GPUs, torch and the host: with an nvidia-smi that is a stand-in, and torch's own answer."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from batchgen.site import devices
from batchgen.site.devices import check_gpus, check_host, check_torch, torch_findings
from batchgen.site.findings import FAIL, OK, WARN

SMI = """#!/bin/sh
case "$1" in
--query-gpu=index,uuid,name,*) echo "0, GPU-aa, NVIDIA H200, 140000, 9.0, Disabled";;
--query-gpu=index,uuid,memory.total*) echo "0, GPU-aa, 143771, 580.65";;
--query-compute-apps=*) {apps};;
esac
"""
SOUND: dict[str, Any] = {
    "torch": "2.13.0",
    "cuda": "13.0",
    "cpu": True,
    "gpus": [{"name": "H200", "right": True, "why": ""}],
}


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "nvidia-smi"


def write(program: Path, script: str) -> None:
    program.write_text(script)
    program.chmod(0o755)


def test_a_gpu_and_what_others_hold_of_it(smi: Path) -> None:
    write(smi, SMI.format(apps="true"))
    [found] = check_gpus(True)
    assert found.level == OK and found.what == "NVIDIA H200, 136.7 GiB free of 140.4 GiB, driver 580.65"
    write(smi, SMI.format(apps='echo "GPU-aa, python3, 9000"; echo "GPU-bb, other, 1"'))
    [found] = check_gpus(True)
    assert found.level == WARN and "in use by python3 (9000 MiB)" in found.what and "other" not in found.what


def test_a_machine_without_gpus(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(smi, "#!/bin/sh\nexit 9\n")
    assert [one.level for one in check_gpus(True)] == [WARN]
    [login_node] = check_gpus(False)
    assert login_node.level == OK and "srun" in login_node.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=" in next(iter(check_gpus(True))).what


def test_a_driver_that_fails(smi: Path) -> None:
    write(smi, "#!/bin/sh\necho 'Driver/library version mismatch'; exit 18\n")
    [found] = check_gpus(True)
    assert found.level == FAIL and "mismatch" in found.what


def test_torch_of_this_environment_answers() -> None:
    found = list(check_torch())
    assert found[-1].topic == "torch" and "diffusers" in found[-1].what


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_BY_TORCH", "raise ImportError('libcudart.so.13 is missing')")
    [found] = check_torch()
    assert found.level == FAIL and "libcudart.so.13 is missing" in found.what


@pytest.mark.parametrize(
    ("change", "given", "said"),
    [
        ({"gpus": []}, 1, "but the driver reports 1"),
        ({"gpus": [], "cuda": None}, 1, "CUDA not in this build"),
        ({"cpu": False}, 1, "comes out wrong on the CPU"),
        ({"gpus": [{"name": "H200", "right": False, "why": "CUDA error: ECC"}]}, 1, "H200: CUDA error: ECC"),
    ],
)
def test_torch_and_the_driver_must_agree(change: dict[str, Any], given: int, said: str) -> None:
    found = list(torch_findings(SOUND | change, given))
    assert found[0].level == FAIL and said in found[0].what


def test_a_sound_torch() -> None:
    assert [one.level for one in torch_findings(SOUND, 1)] == [OK]
    assert [one.level for one in torch_findings(SOUND, None)] == [OK], "what nvidia-smi does not tell is no fault"


@pytest.mark.parametrize(("cores", "free_gib", "level"), [(8, 64, OK), (1, 64, WARN), (8, 2, WARN)])
def test_the_host(monkeypatch: pytest.MonkeyPatch, cores: int, free_gib: int, level: str) -> None:
    memory = SimpleNamespace(available=free_gib << 30, total=128 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    [found] = check_host()
    assert found.level == level and f"{free_gib}.0 GiB" in found.what
