"""batchgen's commands in forked processes, so that hundreds run in a minute, and what must hold after them.

The front command composes nothing anew and workers are forked, not started; past that both are the real ones.
"""

import contextlib
import functools
import io
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.PngImagePlugin  # noqa: F401

import batchgen.run
import batchgen.verify
from batchgen import __main__ as front_door
from batchgen import prepare
from batchgen.config.compose import load, register
from batchgen.config.shipped import conf_dir
from batchgen.console import say
from batchgen.errors import EXIT_INTERRUPTED, BatchgenError
from batchgen.launch import local
from batchgen.machine.versions import versions as process_versions
from batchgen.models import admit
from batchgen.models.find import locate
from batchgen.models.fingerprint import fingerprint_model
from batchgen.paths import RunDir
from batchgen.plan import store as plan
from batchgen.plan.stream import plan_shards
from batchgen.shards import attempt as shards
from batchgen.shards import leases
from batchgen.types import PromptFile
from batchgen.worker import __main__ as worker_door
from batchgen.worker import loop as worker
from tests.fake_engine import FakeEngine
from tests.torture import watch

PROMPTS = [f"a rover on mars, take {number}" for number in range(12)]
IMAGES = len(PROMPTS)
LIMIT_S = 20.0
random_uuid = uuid.uuid4
# All that a command may say: no traceback, nothing unforeseen.
_SYSTEM_SAYS = "(Input/output error|Stale file handle|File exists)"
_EXPECTED = [
    re.compile(pattern)
    for pattern in (
        r"batchgen: \S+ is (already )?done: \d+ images in \d+ shards, [\d.]+ MiB",
        r'batchgen: read them with load_dataset\("webdataset", data_files="\S+"\), or with webdataset',
        r"batchgen: \S+ was planned with different prompts: (\S+: not named in job\.prompts(; )?)+\.",
        r"Nothing was changed: put the missing file back or name it in job\.prompts, or start a new run with .*",
        r"batchgen: \S+ is broken: shard \d{6}'s tar is missing\. Nothing is made again unless you ask for it\.",
        r"batchgen: shard \d{6}'s tar is missing; the other shards are made all the same",
        r"If you moved the tars, put them back\. If they are lost, .*",
        r"batchgen: \d+ workers? loads? the model; \d+ of \d+ images are there, and progress follows",
        r"batchgen: \d+/\d+ images, .*",
        r"batchgen: finishing the units under way; (press Ctrl-C again|kill -INT \d+) to stop at once",
        r"batchgen: stopped; the same command goes on",
        r"batchgen: interrupted; what is finished is kept, and the same command goes on",
        r"batchgen: (worker 0: )?the disk is full .*same command goes on",
        rf"batchgen: worker 0: OSError: \[Errno \d+\] {_SYSTEM_SAYS}.*\(more in \S+\)",
        rf"batchgen: (worker 0: )?{_SYSTEM_SAYS}: \S+",
        r"batchgen: worker 0 (ended with exit code 1|was killed by SIGKILL); started again \([123] of 3\)",
        r"batchgen: worker 0 ended with exit code 1; given up after \d restarts",
        r"batchgen: this file system has no hard links: one worker, .*",
        r"batchgen: (samples\.parquet or README\.md|the report) was not written: .* \(python -m batchgen\.report .*\)",
    )
]
FULL_LINE = re.compile(r"batchgen: (worker 0: )?the disk is full .*the same command goes on", re.M)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    stderr: str

    def problems(self, codes):
        """What of it is not as documented."""
        found = [] if self.code in codes else [f"exit code {self.code}, not of {codes}: {self.stderr}"]
        lines = self.stderr.splitlines()
        odd = [line for line in lines if not any(one.fullmatch(line) for one in _EXPECTED)]
        return found + ([f"said {odd[:6]}"] if odd else [])


def set_up(folder):
    """Get ready to run commands on runs below `folder`: what takes long is done once, here."""
    _import_for_the_end()
    prompts = Path(folder) / "prompts.txt"
    prompts.write_text("".join(f"{line}\n" for line in PROMPTS))
    register()
    config = load(_compose(prompts))
    model, versions = locate(config.model), functools.cache(process_versions)
    found = fingerprint_model(model)
    versions()
    _swap(prepare, fingerprint_model=lambda *_: found)
    _swap(admit, versions=versions)
    admission = admit.Admission(model, config, lambda: found)
    list(admission.watch(plan_shards(config, [PromptFile(prompts)])))  # kept from now on
    _swap(plan, versions=versions)
    local._POLL_S = 0.004
    worker._IDLE_S = 0.01
    leases._WRITES_A_TIMEOUT = 0.01  # as good as never: the operations of a run have the same numbers each time
    _swap(local, subprocess=_Subprocess)
    os.environ["FAKE_STEP_S"] = "0"
    _swap(uuid, uuid4=lambda: uuid.UUID(int=random.Random(watch.next_number()).getrandbits(128)))  # the same each time
    _mark_promises()
    watch.install()
    watch.forbid_truncate()
    return config


def _import_for_the_end():
    """What each command imports late, imported once: they are forked."""
    import pyarrow as pa
    import pyarrow.parquet  # noqa: F401

    pa.array([1])  # this imports pandas where it is installed


def _compose(prompts):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [
            "job=mars_batch", f"job.prompts={prompts}", "job.width=64", "job.height=64", "job.batch_size=2",
            "output.batches_per_shard=2", "launch.lease_timeout_s=0.3",
        ])  # fmt: skip


def _mark_promises():
    append, commit = shards.Attempt.append, shards.Attempt.commit

    def marked_append(self, samples, record):
        append(self, samples, record)
        watch.mark("appended", self._shard.index, self.rows)

    def marked_commit(self):
        won = commit(self)
        watch.mark("committed", self._shard.index)
        return won

    _swap(shards.Attempt, append=marked_append, commit=marked_commit)


def _swap(owner, **replacements):
    for name, replacement in replacements.items():
        setattr(owner, name, replacement)


class _CountingEngine(FakeEngine):
    def decode(self, latents, policy):
        watch.note_images(len(latents))
        return super().decode(latents, policy)


class _Popen:
    """A worker, forked: as subprocess.Popen for what batchgen.launch.local asks of it."""

    def __init__(self, command, **_):
        arguments = command[len(local.WORKER_COMMAND) :]
        stdin_read, stdin_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(stdin_write)
            os.close(stderr_read)
            os.dup2(stdin_read, 0)
            os.dup2(stderr_write, 2)
            sys.argv = ["worker", *arguments]
            _end_with(lambda: worker_door.main(lambda _: _CountingEngine(), lambda _: None))
        os.close(stdin_read)
        os.close(stderr_write)
        self.stdin = os.fdopen(stdin_write, "wb")
        self.stderr = os.fdopen(stderr_read, "rb")

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended(status)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self._ended(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def _ended(self, status):
        self.returncode = os.waitstatus_to_exitcode(status)
        self.stdin.close()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


class _Subprocess:
    PIPE = DEVNULL = None
    Popen = _Popen


def _end_with(act):
    """Run `act` and end this process with its code, as the interpreter would."""
    code: Any = 1
    try:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True, write_through=True)
        code = act()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _as_the_front_door(config):
    """As `compose` does without Hydra."""
    try:
        return front_door._run(config, front_door._settled, front_door._front)[1]
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return EXIT_INTERRUPTED


class Started:
    """`python -m batchgen` with this configuration, under way in a process of its own."""

    def __init__(self, config, run_dir):
        config.run_dir = str(run_dir)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        # A new process has nothing of ours that a signal could end in: none comes before it is set up.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # as batchgen.__main__ has it until a run begins
            os.setsid()
            os.dup2(self._stderr.fileno(), 2)
            watch._State.front = os.getpid()
            _swap(front_door, require_job=lambda _: None, load=lambda composed: composed)
            _swap(front_door, run_dir_of=lambda config: config.run_dir)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _end_with(lambda: _as_the_front_door(config))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def signal(self, number, everybody=False):
        """Send it a signal, or with `everybody` its worker too; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if everybody else os.kill)(self.pid, number)

    def ended(self):
        """How it ended, once it and its worker have; kills what takes too long."""
        code = _wait(self.pid)
        _wait_for_group(self.pid)
        self._stderr.seek(0)
        said = self._stderr.read().decode()
        self._stderr.close()
        return Ended(code, said)


def command(config, run_dir):
    """`python -m batchgen` with this configuration, in a process of its own, to its end."""
    return Started(config, run_dir).ended()


def _wait(pid):
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def _wait_for_group(pid):
    """A front command that was killed leaves its worker, which ends by itself."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)


def committed_files(run_dir):
    """{name: bytes} of manifests, and of the tars that have one."""
    run = RunDir(Path(run_dir))
    found = {}
    for shard in sorted(run.committed()):
        found[run.manifest(shard).name] = run.manifest(shard).read_bytes()
        if run.tar(shard).exists():
            found[run.tar(shard).name] = run.tar(shard).read_bytes()
    return found


def tars(run_dir):
    """{name: bytes} of the tars of a run."""
    return {path.name: path.read_bytes() for path in sorted((Path(run_dir) / "shards").glob("*.tar"))}


def wrongs(run_dir, expected_tars):
    """What is wrong with a run that says that it is whole."""
    try:
        loaded = plan.load_plan(RunDir(Path(run_dir)))
        findings = batchgen.verify.verify(loaded)
        planned = sorted(prompt.key for prompt in loaded.prompts())
    except BatchgenError as error:
        return [f"verify: {error}"]
    found = [f"verify: {problem}" for problem in findings.problems + findings.warnings]
    found += [f"shards {findings.missing_shards} are missing"] if findings.missing_shards else []
    if sorted(findings.keys.elements()) != planned or len(planned) != IMAGES:
        found.append("the keys are not those that were planned, each once")
    if tars(run_dir) != expected_tars:
        found.append("the tars differ from an undisturbed run's")
    return found


def left_behind(run_dir):
    """Files of a finished run that nobody needs."""
    names = [path.relative_to(run_dir) for path in Path(run_dir).rglob("*")]
    drafts = [name for name in names if name.name.startswith(".") or name.parts[0].startswith("plan.")]
    return [str(name) for name in drafts + [name for name in names if name.parent.name == "work"]]


def empty(folder):
    """An empty directory at `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
