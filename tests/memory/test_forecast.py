"""What a worker would choose, foreseen from what nvidia-smi says of the GPU."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.commands import front, write_prompts


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
