"""`batchgen doctor` as a command: on this machine, with a job, and with faults."""

import json
import os
import re
import subprocess
import sys
import time

from tests.commands import ROOT, run, write_prompts

DOCTOR = [sys.executable, "-m", "batchgen.doctor"]
ALONE = {"PATH": "/usr/local/nothing", "CUDA_VISIBLE_DEVICES": ""}  # no SLURM, no GPU


def levels(done):
    return {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()}


def test_without_a_job_it_checks_the_site_and_leaves_nothing(tmp_path):
    done = run(DOCTOR, cwd=tmp_path, BATCHGEN_CACHE=str(tmp_path / "cache"), **ALONE)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = levels(done)
    assert found.keys() == {"run", "disk", "clock", "host", "GPUs", "torch", "model", "cache", "SLURM"}
    assert found["GPUs"] == "warn" and found["model"] == "ok" and found["torch"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_with_a_job_it_says_what_a_dry_run_says(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 12)
    settings = [f"job.prompts={prompts}", f"run_dir={tmp_path / 'run'}"]
    done = run([sys.executable, "-m", "batchgen", "doctor"], *settings, "dry_run=json", **ALONE)
    says = json.loads(done.stdout)
    assert (done.returncode, says["exit_code"]) == (0, 0)
    [job] = [one for one in says["findings"] if one["topic"] == "job" and one["level"] == "ok"]
    assert "prompts 12" in job["what"]
    assert not (tmp_path / "run").exists()


def test_what_is_missing_fails(tmp_path):
    prompts = write_prompts(tmp_path / "prompts.txt", 2)
    settings = [f"job.prompts={prompts}", f"run_dir={tmp_path / 'run'}", "launch=slurm", "model.path=nothing"]
    done = run(DOCTOR, *settings, **ALONE)
    assert done.returncode == 1
    assert [topic for topic, level in levels(done).items() if level == "FAIL"] == ["model", "SLURM", "job"]
    done = run(DOCTOR, f"job.prompts={tmp_path / 'none.txt'}", **ALONE)
    assert done.returncode == 1 and "none.txt" in done.stdout.splitlines()[-1]


def test_a_run_directory_that_cannot_be_written_to_is_told(tmp_path):
    done = run(DOCTOR, "run_dir=/proc/batchgen/run", **ALONE)
    assert done.returncode == 1 and levels(done)["run"] == "FAIL" and "run_dir=DIR" in done.stdout


def test_a_mistake_is_told_as_the_front_door_tells_it():
    done = run(DOCTOR, "launch.worker=3", **ALONE)
    assert (done.returncode, done.stdout) == (2, "") and "launch.workers" in done.stderr


def test_help_is_instant_and_says_how_to_check_a_node():
    began_s = time.monotonic()
    done = subprocess.run(
        [*DOCTOR, "--help"], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"},
    )  # fmt: skip
    assert "srun -p gpu" in done.stdout and time.monotonic() - began_s < 30
    assert "import time:" in done.stderr and not re.search(
        r"\|\s+(torch|hydra|diffusers)\s*$", done.stderr, re.MULTILINE
    )
