"""A user's mistake is one clear line, exit code 2, no traceback; the small commands start at once."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from batchgen.console import run_dir_command
from tests.commands import FAKE, ROOT, front, run, write_prompts

MISTAKES = {
    "no job": ([], "name a job with job=NAME; choose one of landscape_4k, mars_batch, parti"),
    "misspelt job": (["job=mars_bach"], "did you mean mars_batch?"),
    "misspelt key": (["job=mars_batch", "job.batch_siz=64"], "job.batch_siz: no such key; did you mean job.batch_size"),
    "added key": (["job=mars_batch", "+job.foo=1"], "job.foo: no such key"),
    "misspelt group": (["job=mars_batch", "modl=tiny"], "modl: no such key; did you mean model"),
    "misspelt model": (["job=mars_batch", "model=sd51"], "did you mean sd15?"),
    "wrong type": (["job=mars_batch", "job.steps=many"], "job.steps: Value 'many'"),
    "fraction": (["job=mars_batch", "job.steps=2.5"], "job.steps: Value '2.5'"),
    "bad size": (["job=mars_batch", "job.width=100"], "job.width must be a multiple of 8"),
    "bad seed": (["job=mars_batch", "job.seed=-1"], "job.seed must be between 0 and 4294967295"),
    "bad batch": (["job=mars_batch", "job.batch_size=0"], "job.batch_size must be between 1"),
    "huge number": (["job=mars_batch", f"job.steps={'9' * 400}"], "job.steps must be between"),
    "scheduler": (["job=mars_batch", "job.scheduler=dpm"], "did you mean dpm++?"),
    "dtype": (["job=mars_batch", "model.dtype=int8"], "model.dtype=int8 is not valid"),
    "format": (["job=mars_batch", "output.format=gif"], "choose one of png, jpg, webp"),
    "no file": (["job=mars_batch", "job.prompts=nowhere.txt"], "nowhere.txt"),
    "no match": (["job=mars_batch", "job.prompts=nowhere/*.csv"], "nowhere/*.csv"),
    "no model": (["job=mars_batch", "model.path=./nowhere"], "model.path=./nowhere: no such folder"),
    "misspelt carried model": (["job=mars_batch", "model.path=tinny"], "did you mean tiny?"),
    "a list without quotes": (["job=mars_batch", "job.prompts=a.txt,b.txt"], "write a list in quotes"),
    "two equals": (["job=mars_batch", "job.negative_prompt=a=b"], "cannot be parsed"),
    "encoding": (["job=mars_batch", "job.encoding=utf-99"], "utf-99"),
}


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, arguments, words):
    done = run(FAKE, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2 and done.stderr.startswith("batchgen: ")
    assert not list(tmp_path.iterdir())


def test_a_directory_with_other_files_is_never_written_to(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    done = front(tmp_path / "run", write_prompts(tmp_path / "p.txt", 3))
    assert done.returncode == 2 and "is not a run" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["verify", "status", "repair"])
def test_a_directory_that_is_no_run_is_said_to_be_none(tmp_path, command):
    done = run([sys.executable, "-m", f"batchgen.{command}"], tmp_path)
    assert done.returncode == 2
    assert "is not a run" in done.stderr and len(done.stderr.splitlines()) == 1


def test_bad_rows_are_listed_or_end_it(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,width\na good row,64\na bad row,65\n,64\n")
    failed = front(tmp_path / "run", path, "job.on_bad_row=fail")
    assert failed.returncode == 2 and "p.csv:3: width must be a multiple of 8" in failed.stderr
    assert not list((tmp_path / "run").glob("*"))
    assert front(tmp_path / "run", path).returncode == 0
    rejects = (tmp_path / "run" / "plan" / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == 2 and '"line":4' in rejects[1]


def test_help_dry_run_and_the_small_commands_load_no_torch(tmp_path):
    prompts = write_prompts(tmp_path / "p.txt", 20)
    front(tmp_path / "run", prompts)
    spy = (
        "import sys, runpy, atexit; atexit.register(lambda: print('TORCH', 'torch' in sys.modules));"
        "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    )
    job = ["batchgen", "job=mars_batch", f"job.prompts={prompts}"]
    done = [*job, f"run_dir={tmp_path / 'run'}", "job.width=64", "job.height=64", "job.batch_size=4",
            "output.batches_per_shard=2"]  # fmt: skip
    for arguments in (
        ["batchgen", "--help"],
        [*job, "dry_run=true", f"run_dir={tmp_path / 'other'}"],
        ["batchgen.status", tmp_path / "run"],
        ["batchgen.verify", tmp_path / "run"],
        ["batchgen.repair", tmp_path / "run"],
        done,
    ):
        ended = run([sys.executable, "-c", spy, *map(str, arguments)], cwd=ROOT)
        assert ended.returncode == 0, ended.stderr
        assert "TORCH False" in ended.stdout


def test_every_shipped_job_composes(tmp_path):
    jobs = sorted(path.stem for path in (ROOT / "conf" / "job").glob("*.yaml"))
    assert jobs == ["landscape_4k", "mars_batch", "parti"]
    prompts = write_prompts(tmp_path / "p.txt", 3)
    for job in jobs:
        done = run(FAKE, f"job={job}", f"job.prompts={prompts}", "dry_run=true", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "prompts    3" in done.stdout


def test_the_bar_is_shown_on_a_terminal(tmp_path):
    """Through a pseudo-terminal, as a person sees it."""
    prompts = write_prompts(tmp_path / "p.txt", 40)
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    arguments = ["job=mars_batch", f"run_dir={tmp_path / 'run'}", f"job.prompts={prompts}", "job.batch_size=4"]
    process = subprocess.Popen([*FAKE, *arguments], stderr=child, stdin=child, env=os.environ | {"FAKE_STEP_S": "0.2"})
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    text = shown.decode()
    assert "mars_batch:" in text and "40/40" in text and "image/s" in text and "peak " in text


def test_ctrl_c_at_any_moment_is_no_mistake_in_the_configuration(tmp_path):
    codes = set()
    for wait_s in (0.15, 0.2, 0.25, 0.3, 0.35, 0.4):
        process = subprocess.Popen(
            [*FAKE, "job=mars_batch", f"run_dir={tmp_path / str(wait_s)}"],
            stderr=subprocess.PIPE, text=True, env=os.environ | {"FAKE_STEP_S": "1"},
        )  # fmt: skip
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        assert "batchgen: defaults" not in process.communicate()[1]
        codes.add(process.returncode)
    assert codes <= {75, -signal.SIGINT}


def test_ctrl_c_ends_a_small_command_with_one_line(monkeypatch, capsys, tmp_path):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["verify", str(tmp_path)])
    assert run_dir_command("verify", "", interrupted) == 75
    assert capsys.readouterr().err == "batchgen: stopped\n"
