"""`python -m batchgen.bench` as a command, on the CPU with a small model; it goes on where it was stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT, run, start, write_prompts

BENCH = [sys.executable, "-m", "batchgen.bench"]
SETTINGS = ("job.width=64", "job.height=64", "job.steps=2", "job.batch_size=2", "job.scheduler=ddim")
FEW = ("--images", "2", "--only", "original", "guide_batch", "batchgen", "batchgen_cudnn")


def bench(small: Path, folder: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The command in a folder, with a cache of its own."""
    prompts = write_prompts(folder / "night.txt", 3)
    given = [f"job.prompts={prompts}", f"model.path={small}", *SETTINGS, *words]
    return run(BENCH, *given, cwd=folder, BATCHGEN_CACHE=str(folder / "cache"), CUDA_VISIBLE_DEVICES="", **more)


@pytest.mark.slow
def test_the_table_and_its_json_and_then_all_is_known(small: Path, tmp_path: Path) -> None:
    done = bench(small, tmp_path, *FEW)
    assert done.returncode == 0, done.stderr
    assert "3 rows to measure, each in a process of its own: roughly" in done.stderr
    assert "written: outputs/night.bench.json" in done.stderr
    lines = done.stdout.splitlines()
    figures = r"(\s+[\d.x]+){5}"
    for what in ("original, fp32", "the guide's recipe", "batchgen, as given"):
        assert [line for line in lines if re.fullmatch(re.escape(what) + figures, line)], done.stdout
    assert any("speed.attention=cudnn" in line and "left out: it is for a GPU" in line for line in lines)
    found = json.loads((tmp_path / "outputs" / "night.bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["original", "guide_batch", "batchgen", "batchgen_cudnn"]
    assert found["settings"]["batches"] == 1 and found["rows"][2]["peak_bytes"] > 100 << 20
    assert not (tmp_path / "outputs" / "night").exists()
    again = bench(small, tmp_path, *FEW, "--json", "other.json")
    assert (again.returncode, again.stdout) == (0, done.stdout) and "3 rows known from before" in again.stderr
    assert json.loads((tmp_path / "other.json").read_text())["rows"] == found["rows"]


@pytest.mark.slow
def test_a_row_that_fails_is_a_row_that_says_so_and_the_others_go_on(small: Path, tmp_path: Path) -> None:
    done = bench(small, tmp_path, "--images", "2", "--only", "batchgen", "original", "model.lora=./nowhere.safetensors")
    assert done.returncode == 3, done.stderr
    rows = json.loads((tmp_path / "outputs" / "night.bench.json").read_text())["rows"]
    assert "images_per_s" in rows[0] and "nowhere.safetensors" in rows[1]["failed"]
    assert re.search(r"batchgen, as given +failed: .*nowhere.safetensors", done.stdout)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_measured(small: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "night.txt", 3)
    given = [f"job.prompts={prompts}", f"model.path={small}", *SETTINGS, "--images", "2", "--only", "original,batchgen"]
    environment = {"BATCHGEN_CACHE": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    process = start(BENCH, *given, cwd=tmp_path, **environment)
    assert process.stderr is not None
    said = ""
    while "measuring batchgen" not in said:
        assert (line := process.stderr.readline()), said
        said += line
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "the same command goes on" in said and "Traceback" not in said
    found = json.loads((tmp_path / "outputs" / "night.bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["original"]
    seen = run(BENCH, *given, "dry_run=true", cwd=tmp_path, **environment)
    assert seen.returncode == 0 and "1 row to measure, and 1 known from before" in seen.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "tracd"], "--only tracd: there is no such row; did you mean traced"),
        (["--images", "0"], "--images 0: it must be a whole number of 1 or more"),
        (["--images", "many"], "invalid int value: 'many'"),
        (["--json", "/nowhere/x.json"], "--json /nowhere/x.json: it must be a file in a directory that exists"),
        (["-m", "job.seed=1,2"], "a bench measures one job"),
        (["job.step=3"], "job.step: no such key; did you mean job.steps"),
        (["model.path=./nowhere"], "model.path=./nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, words: list[str], said: str) -> None:
    done = run(BENCH, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and len(done.stderr.splitlines()) <= 2 and "Traceback" not in done.stderr


def test_help_is_instant_and_lists_the_levers() -> None:
    done = run([sys.executable, "-X", "importtime", *BENCH[1:]], "--help", cwd=ROOT)
    assert "batchgen_channels_last" in done.stdout and done.returncode == 0
    assert not re.search(r"\|\s+(torch|hydra|diffusers)\s*$", done.stderr, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 120
