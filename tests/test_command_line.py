"""A user's mistake is one clear line, exit code 2, no traceback; the small commands start at once."""

import fcntl
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import yaml

from batchgen import __version__
from batchgen.console import COMMANDS, run_dir_command
from tests.commands import FAKE, REAL, ROOT, front, run, shard_files, verify, write_prompts

MISTAKES = {
    "no job": ([], "name a job with job=NAME; choose one of landscape_4k, mars_batch, parti"),
    "misspelt job": (["job=mars_bach"], "did you mean mars_batch?"),
    "misspelt key": (["job=mars_batch", "job.batch_siz=64"], "job.batch_siz: no such key; did you mean job.batch_size"),
    "added key": (["job=mars_batch", "+job.foo=1"], "job.foo: no such key"),
    "misspelt group": (["job=mars_batch", "modl=tiny"], "modl: no such key; did you mean model"),
    "misspelt model": (["job=mars_batch", "model=sd51"], "did you mean sd15?"),
    "wrong type": (["job=mars_batch", "job.steps=many"], "job.steps=many: it must be a whole number"),
    "fraction": (["job=mars_batch", "job.steps=2.5"], "job.steps=2.5: it must be a whole number"),
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
    "misspelt carried model": (["job=mars_batch", "model.path=tinny"], "did you mean tiny or tiny_2?"),
    "a list without quotes": (["job=mars_batch", "job.prompts=a.txt,b.txt"], "write a list in quotes"),
    "two equals": (["job=mars_batch", "job.negative_prompt=a=b"], "cannot be parsed"),
    "encoding": (["job=mars_batch", "job.encoding=utf-99"], "utf-99"),
    "no arguments": ([], "or name a prompt file: job.prompts=FILE"),
    "text with a comma": (["job=mars_batch", "job.negative_prompt=a,b"], "'job.negative_prompt=\"a,b\"'"),
    "a switch without a value": (["job=mars_batch", "dry_run"], "write dry_run=true"),
    "a switch with dashes": (["job=mars_batch", "--dry-run"], "dry_run=true"),
    "wrong group": (["job=mars_batch", "job.run_dir=x"], "did you mean run_dir=x?"),
    "no option": (["job=null"], "put it in quotes"),
    "options that exclude each other": (["-m", "--cfg", "job"], "Only one of"),
    "no configuration": (["--config-dir", "nowhere", "job=x"], "--config-dir: there is no directory"),
    "no searched folder": (["hydra.searchpath=[/nowhere]", "job=x"], "path=/nowhere is not available"),
    "misspelt command": (["statsu", "outputs/x"], "did you mean"),
    "a directory": (["outputs/x"], "status outputs/x shows how far a run is"),
    "a name too long": (["job=mars_batch", "run_dir=" + "x" * 300], "name too long; set run_dir=DIR"),
    "a directory that cannot be": (["job=mars_batch", "run_dir=/proc/x"], "nothing can be made in /proc"),
    "a directory in a file": (["job=mars_batch", "run_dir=/etc/passwd/x"], "/etc/passwd is a file; set run_dir=DIR"),
}


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, arguments, words):
    done = run(FAKE, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2 and done.stderr.startswith("batchgen: ")
    assert not list(tmp_path.iterdir())


CASES = {
    "misspelt key": (
        b"# @package _global_\njob:\n  name: x\n  prompts: p.txt\n  stpes: 3\n",
        ":5: job.stpes=3: no such",
    ),
    "syntax": (
        b"# @package _global_\njob:\n  name: x\n  negative_prompt: a: b\n",
        ":4: negative_prompt: a: b: it is not",
    ),
    "bounds": (b"name: x\nprompts: p.txt\nwidth: 100\n", ":3: job.width must be a multiple of 8"),
    "encoding": (b"name: x\nprompts: caf\xe9.txt\n", ":2: byte 0xe9 is not UTF-8"),
    "reference": (
        b"name: x\nprompts: p.txt\nnegative_prompt: ${no}\n",
        ":3: job.negative_prompt=${no}: there is no key",
    ),
    "prompts": (b"name: x\nprompts: q.txt\n", ":2: job.prompts: no prompt file q.txt"),
    "option": (
        b"# @package _global_\ndefaults:\n  - override /model: sd51\n",
        ":3: - override /model: sd51: model has no",
    ),
}


@pytest.mark.parametrize("text, words", CASES.values(), ids=CASES.keys())
def test_a_mistake_in_a_job_of_ones_own_is_told_with_its_line(tmp_path, text, words):
    (tmp_path / "mine" / "job").mkdir(parents=True)
    (tmp_path / "mine" / "job" / "venus.yaml").write_bytes(text)
    write_prompts(tmp_path / "p.txt", 3)
    done = run(FAKE, "--config-dir", "mine", "job=venus", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"batchgen: mine/job/venus.yaml{words}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("text", ["blurry,lowres", "it's a = b", 'say "no", {x} (ugly:1.3)', "costs $5 or ${more}"])
def test_the_line_that_is_advised_works_in_a_shell(tmp_path, text):
    command = [*REAL, "--cfg", "job", "--resolve", "job=mars_batch"]
    wrong = run(command, f"job.negative_prompt={text}", cwd=tmp_path)
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1, wrong.stderr
    advised = wrong.stderr[wrong.stderr.rindex(" 'job.negative_prompt=") :]
    right = run(["bash", "-c", f"{shlex.join(command)} {advised}"], cwd=tmp_path)
    assert right.returncode == 0, right.stderr
    assert yaml.safe_load(right.stdout)["job"]["negative_prompt"] == text


def test_a_prompt_file_is_enough_for_a_first_run(tmp_path):
    write_prompts(tmp_path / "my first.txt", 3)
    done = run(FAKE, "job.prompts=my first.txt", "job.width=64", "job.height=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "outputs" / "my_first").returncode == 0
    again = run(FAKE, "job.prompts=my first.txt", "job.width=64", "job.height=64", cwd=tmp_path)
    assert again.returncode == 0 and "already done" in again.stderr


def test_another_file_of_the_same_name_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_prompts(tmp_path / folder / "p.txt", 3 if folder == "a" else 4)
    assert run(FAKE, "job.prompts=a/p.txt", cwd=tmp_path).returncode == 0
    tars = shard_files(tmp_path / "outputs" / "p")
    other = run(FAKE, "job.prompts=b/p.txt", cwd=tmp_path)
    assert other.returncode == 2 and "p.txt" in other.stderr and "another run_dir=DIR" in other.stderr, other.stderr
    assert shard_files(tmp_path / "outputs" / "p") == tars


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_started_in_three_ways_and_names_itself_as_typed(tmp_path, name):
    script = tmp_path / "batchgen"
    script.write_text("import sys\nfrom batchgen.__main__ import main\nsys.exit(main())\n")
    ways = {
        f"batchgen {name}": [sys.executable, script, name],
        f"python -m batchgen {name}": [*REAL, name],
        f"python -m batchgen.{name}": [sys.executable, "-m", f"batchgen.{name}"],
    }
    for typed, command in ways.items():
        done = run(command, "--help", cwd=tmp_path)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: {typed} ["), done.stdout + done.stderr
        if not COMMANDS[name][0].startswith("RUN_DIR"):
            continue  # it needs no arguments
        wrong = run(command, cwd=tmp_path)
        assert wrong.returncode == 2 and f"{typed} --help" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert f"batchgen {name} {COMMANDS[name][0]}" in run(REAL, "--help").stdout


def test_a_command_does_what_its_module_does(tmp_path):
    front(tmp_path / "run", write_prompts(tmp_path / "p.txt", 5))
    for name in ("status", "verify", "repair"):
        one, other = (run(way, tmp_path / "run") for way in ([*REAL, name], [sys.executable, "-m", f"batchgen.{name}"]))
        as_of = one.stdout.find("as of")
        assert (one.returncode, one.stderr) == (other.returncode, other.stderr) == (0, "")
        assert one.stdout[:as_of] == other.stdout[:as_of] != ""


@pytest.mark.parametrize("numbers", [("0", "0"), ("2", "2"), ("-1", "2"), ("a", "2"), ("0", "1.5"), ("0",), ()])
def test_a_worker_of_no_world_is_one_line(tmp_path, numbers):
    done = run(REAL, "worker", tmp_path, *numbers)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def test_the_version_is_batchgens_own():
    done = run(REAL, "--version")
    assert done.returncode == 0 and done.stderr == ""
    assert (
        done.stdout.startswith(f"batchgen {__version__} (") and "torch " in done.stdout and "diffusers " in done.stdout
    )


def test_readers_that_go_away_end_nothing_with_a_traceback(tmp_path):
    front(tmp_path / "run", write_prompts(tmp_path / "p.txt", 5))
    python = shlex.quote(sys.executable)
    for arguments in ("batchgen --help", "batchgen --cfg job", "batchgen --version", "batchgen --info plugins",
                      f"batchgen status {tmp_path}/run", "batchgen.config.describe"):  # fmt: skip
        done = run(["bash", "-c", f"{python} -m {arguments} | true"])
        assert (done.returncode, done.stderr) == (0, ""), arguments


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


@pytest.mark.parametrize(
    "command", [["verify", "mars"], ["status", "mars"], ["repair", "mars"], ["worker", "mars", "0", "1"]]
)
def test_the_run_that_is_meant_is_named_by_every_command(tmp_path, command):
    (tmp_path / "outputs" / "mars" / "plan").mkdir(parents=True)
    (tmp_path / "outputs" / "mars" / "plan" / "run.json").write_text("{}")
    done = run([sys.executable, "-m", "batchgen", *command], cwd=tmp_path)
    assert done.returncode == 2 and "mars is not a run: " in done.stderr, done.stderr
    assert "Did you mean outputs/mars?" in done.stderr and len(done.stderr.splitlines()) == 1


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
    assert "mars_batch:" in text and "40/40" in text and "images/s" in text and "peak " in text


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
