"""A job puts itself back into SLURM's queue; what that needs is a scontrol on the PATH."""

from pathlib import Path

import pytest

from batchgen.launch.requeue import job_of, requeue


def scontrol(folder: Path, script: str) -> Path:
    """A program in place of SLURM's, which writes down what it was asked."""
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{script}\n')
    program.chmod(0o755)
    return folder / "asked"


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "41"}, "41"),
        ({"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "0"}, "41_0"),
    ],
)
def test_an_element_is_named_by_its_array_and_a_job_by_its_number(environ: dict[str, str], job: str | None) -> None:
    assert job_of(environ) == job


def test_it_is_asked_for_once_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scontrol(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said: list[str] = []
    requeue("41_0", said.append)
    assert asked.read_text() == "requeue 41_0\n"
    assert said == ["job 41_0 was put back into the queue, and goes on when its turn comes"]


def test_where_it_fails_one_line_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, "echo 'Requested operation is presently disabled' >&2; exit 1")
    said: list[str] = []
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    requeue("41", said.append)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    requeue("41", said.append)
    assert len(said) == 2 and all(line.endswith("; the same command goes on") for line in said)
    assert "not put back into the queue (Requested operation is presently disabled)" in said[0]
    assert "No such file or directory" in said[1]
