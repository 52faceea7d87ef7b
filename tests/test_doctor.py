"""`batchgen doctor` as a command: on this machine, with a job, and with faults."""

import json
import os
import re
import subprocess
import sys
import time

from batchgen import doctor
from batchgen.evening.lines import Line
from tests.builders import make_config
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


def test_a_job_that_is_not_over_by_its_deadline_is_told(tmp_path, monkeypatch):
    prompts = write_prompts(tmp_path / "prompts.txt", 2)
    config = make_config(tmp_path, job__prompts=str(prompts), launch__time_limit="10m")
    told = [Line("time", "about 9h00m", {"time_s": 32400.0}), Line("warning", "the model cuts 1 text")]
    monkeypatch.setattr(doctor, "collect", lambda *_: (told, None))
    _, cut, late = doctor._check_job(config)
    assert cut.what == "the model cuts 1 text"
    assert late.level == "warn" and "launch.time_limit=10m" in late.what and "takes about 9h00m" in late.what
    config.launch.time_limit = "10h"
    assert len(list(doctor._check_job(config))) == 2
