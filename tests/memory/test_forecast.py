"""What a worker would choose, foreseen from what nvidia-smi says of the GPU."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from batchgen.memory.host_bytes import CPU_PROCESS_BYTES, CUDA_PROCESS_BYTES
from tests.commands import FAKE, front, write_prompts


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that gives the machine a GPU with so many MiB free, as far as nvidia-smi goes."""

    def put(free_mib: int) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '0, GPU-6, Card 6, {free_mib}, 8.6'\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


def test_a_dry_run_says_what_the_gpu_would_do_and_why(tmp_path: Path, card: Any) -> None:
    card(24_000)
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    shown = front(tmp_path / "run", prompts, "dry_run=true", "job.width=512", "job.height=512")
    assert shown.returncode == 0, shown.stderr
    assert "model      tiny_2, fp16 on cuda" in shown.stdout
    assert "policy     512x512: resident, micro-batch" in shown.stdout
    assert "nothing is faster (estimated from the model's files; a run of enough images measures)" in shown.stdout
    assert "weight streaming, 3 buffers, micro-batch" in shown.stdout
    capped = front(
        tmp_path / "run", prompts, "dry_run=true", "memory.max_vram=800MiB", "job.width=512", "job.height=512"
    )
    assert "0.1 GiB free" in capped.stdout


def test_a_job_that_cannot_fit_is_refused_before_a_worker_starts(tmp_path: Path, card: Any) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    for free_mib, there in ((750, "0.05"), (300, "0.00")):
        card(free_mib)
        refused = front(tmp_path / "run", prompts, "job.width=2048", "job.height=2048")
        assert refused.returncode == 2
        assert "GiB of free device memory are needed beside CUDA's context" in refused.stderr
        assert f"{there} GiB are free" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not list((tmp_path / "run").glob("logs/workers/*"))


@pytest.mark.parametrize("more", [(), ("dry_run=true",)], ids=["run", "dry run"])
def test_a_job_that_the_host_cannot_hold_is_refused_before_a_worker_starts(
    tmp_path: Path, card: Any, more: tuple[str, ...]
) -> None:
    card(700)
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    # This process may have as much as a worker without any weights in the host's memory.
    limited = ["sh", "-c", f'ulimit -d {CUDA_PROCESS_BYTES >> 10}; exec "$@"', "-", *FAKE]
    refused = front(tmp_path / "run", prompts, "memory.policy.placement=weight_streaming", *more, command=limited)
    assert refused.returncode == 2, refused.stderr
    assert "memory.policy.placement=weight_streaming takes at least 1.0" in refused.stderr
    assert "GiB of the host's memory, and there are 1.00 GiB" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not list((tmp_path / "run").glob("logs/workers/*"))


def test_a_dry_run_says_what_is_taken_of_the_host(tmp_path: Path, card: Any) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    card(24_000)
    shown = front(tmp_path / "run", prompts, "dry_run=true")
    assert re.search(r"at least 1\.0 GiB of the host's memory of \d+\.\d GiB that are there for each", shown.stdout)
    card(0)
    assumed = front(tmp_path / "run", prompts, "dry_run=json", "memory.assume_vram=24GiB")
    says = json.loads(assumed.stdout)
    assert says["host_needed_bytes"] == CUDA_PROCESS_BYTES and says["host_room_bytes"] > 0


def test_the_host_of_a_gpu_that_is_made_up_is_not_known(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 40)
    limited = ["sh", "-c", f'ulimit -d {CUDA_PROCESS_BYTES >> 10}; exec "$@"', "-", *FAKE]
    arguments = ("dry_run=json", "memory.assume_vram=24GiB", "memory.policy.placement=weight_streaming")
    shown = front(tmp_path / "run", prompts, *arguments, command=limited)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["host_room_bytes"] is None


def test_without_a_gpu_the_host_must_be_able_to_load_the_model(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 4)
    limited = ["sh", "-c", f'ulimit -d {CPU_PROCESS_BYTES >> 10}; exec "$@"', "-", *FAKE]
    refused = front(tmp_path / "run", prompts, "model.dtype=bf16", command=limited)
    assert refused.returncode == 2, refused.stderr
    assert "loading the model in bf16 takes at least 0.3" in refused.stderr and len(refused.stderr.splitlines()) == 1
