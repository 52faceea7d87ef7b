"""Showing never raises: whatever happens to the terminal or to whoever reads along, the work goes on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.commands import FAKE, ROOT, front, run, samples, verify, wait_for, write_prompts

SMALL = ["job=mars_batch", "job.width=64", "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]
QUIET = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def prompts(tmp_path):
    return write_prompts(tmp_path / "prompts.txt", 40)


def units(run_dir):
    """How many units are on the disk, in whatever attempt."""
    journals = [*(run_dir / "work").glob("*.jsonl"), *(run_dir / "logs" / "memory").glob("*.jsonl")]
    once = {path.stat().st_ino: path for path in journals}  # while it is committed it has two names
    return sum(path.read_bytes().count(b'"tar_end"') for path in once.values())


def start(shell_line, run_dir, prompts, **environment):
    """A shell line in a process group of its own, with FRONT in it for the command."""
    command = shlex.join([*FAKE, *SMALL, f"run_dir={run_dir}", f"job.prompts={prompts}"])
    line = shell_line.replace("FRONT", command)
    more = QUIET | {"FAKE_STEP_S": "0.2"} | environment
    return subprocess.Popen(["bash", "-c", line], cwd=run_dir.parent, env=os.environ | more, start_new_session=True)


def is_whole_and_made_once(run_dir, prompts, tmp_path):
    again = front(run_dir, prompts)
    assert again.returncode == 0, again.stderr
    assert "0 batches were made twice\nwhole" in verify(run_dir).stdout
    front(tmp_path / "undisturbed", prompts)
    return samples(run_dir) == samples(tmp_path / "undisturbed")


@pytest.mark.parametrize("pipe", ["2>&1 | tee log", "2>&1 | head -1"])
def test_ctrl_c_that_ends_the_reader_too_keeps_all_finished_rows(tmp_path, prompts, pipe):
    run_dir = tmp_path / "run"
    process = start(f"trap : INT; FRONT {pipe}; exit ${{PIPESTATUS[0]}}", run_dir, prompts)
    wait_for(lambda: units(run_dir) >= 3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 75
    kept = units(run_dir)
    assert kept >= 3
    assert is_whole_and_made_once(run_dir, prompts, tmp_path)


@pytest.mark.parametrize("where", [">&- 2>&-", "> /dev/full 2>&1", "2>&1 | true"])
def test_a_run_that_nobody_reads_is_made_to_its_end(tmp_path, prompts, where):
    run_dir = tmp_path / "run"
    process = start(f"FRONT {where}; exit ${{PIPESTATUS[0]}}", run_dir, prompts, FAKE_STEP_S="0")
    assert process.wait(60) == 0
    assert "whole" in verify(run_dir).stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    front(folder / "run", write_prompts(folder / "prompts.txt", 8))
    return folder / "run"


@pytest.mark.parametrize("where", ["> /dev/full 2>/dev/full", "| true"])
@pytest.mark.parametrize("module, code", [("status", 0), ("verify", 0), ("repair", 0), ("status -h", 0)])
def test_commands_end_with_their_code_whoever_reads(finished, module, code, where):
    line = f"{sys.executable} -m batchgen.{module} {finished} {where}; exit ${{PIPESTATUS[0]}}"
    done = run(["bash", "-c"], line)
    assert (done.returncode, done.stderr) == (code, "")


def test_help_may_be_cut_short(tmp_path):
    done = run(["bash", "-c"], f"{sys.executable} -m batchgen -h | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_that_is_not_heard_ends_with_its_code(tmp_path):
    done = run(["bash", "-c"], f"{sys.executable} -m batchgen.worker {tmp_path} 0 1 2>/dev/full")
    assert done.returncode == 2


def test_letters_that_the_terminal_does_not_have_are_written_otherwise(tmp_path, finished):
    run_dir = shutil.copytree(finished, tmp_path / "Bücher")
    done = run([sys.executable, "-m", "batchgen.status"], run_dir, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "B\\xfccher: done" in done.stdout


def test_a_line_that_ctrl_c_interrupts_is_said_once():
    code = """
import sys, time
from batchgen.console import open_console, say
open_console()
for number in range(100):
    try:
        say(f"line {number}")
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for number in range(100):
        assert process.stderr.readline() == f"batchgen: line {number}\n"
        process.send_signal(signal.SIGINT)
    assert process.stderr.read() == "" and process.wait() == 0
