"""Terminals that are lost, readers that go away, progress that cannot be read: each at many moments, nothing lost."""

import contextlib
import os
import pty
import random
import select
import shlex
import signal
import subprocess
import sys
import time

import pytest

from batchgen.errors import EXIT_INTERRUPTED, EXIT_WHOLE
from tests.commands import FAKE, ROOT, front, samples, verify, write_prompts

pytestmark = pytest.mark.torture

SMALL = ["job=mars_batch", "job.width=64", "job.height=64", "job.batch_size=4", "output.batches_per_shard=2"]
# The handlers of a command that was told to end before it had any: nothing had begun.
BEFORE_IT_BEGAN = (-signal.SIGINT, -signal.SIGHUP, 128 + signal.SIGINT)
# The front command, with progress that cannot be read every other time that it is looked at.
STALE = """
import errno, sys
from batchgen.shards import progress
from tests.fake_engine import main
def stale(real, calls=[0]):
    def read(*given, **more):
        calls[0] += 1
        if calls[0] % 2:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(*given, **more)
    return read
for name in ("read_journal", "live_leases"):
    setattr(progress, name, stale(getattr(progress, name)))
from batchgen.launch import display
display._LINE_EVERY_S = 0.0
main()
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """A prompt file, the samples of an undisturbed run of it, and how many seconds that takes under SLOW."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prompts = write_prompts(folder / "prompts.txt", 40)
    front(folder / "run", prompts)
    started = time.monotonic()
    assert front(folder / "slow", prompts, **SLOW).returncode == 0
    return prompts, samples(folder / "run"), time.monotonic() - started


SLOW = {"FAKE_STEP_S": "0.05"}
ENVIRONMENT = os.environ | SLOW | {"PYTHONPATH": str(ROOT)}


def command(run_dir, prompts):
    return [*FAKE, *SMALL, f"run_dir={run_dir}", f"job.prompts={prompts}"]


def nothing_is_lost(run_dir, expected):
    prompts, samples_of_all, _ = expected
    again = front(run_dir, prompts)
    assert again.returncode == EXIT_WHOLE, again.stderr
    assert "0 batches were made twice\nwhole" in verify(run_dir).stdout
    assert samples(run_dir) == samples_of_all


@pytest.mark.parametrize("moment", range(6))
def test_ctrl_c_that_ends_tee_too(tmp_path, expected, moment):
    prompts, _, takes_s = expected
    line = f"trap : INT; {shlex.join(command(tmp_path / 'run', prompts))} 2>&1 | tee log; exit ${{PIPESTATUS[0]}}"
    shell = subprocess.Popen(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT, start_new_session=True)
    time.sleep(random.Random(moment).uniform(0, takes_s))
    os.killpg(shell.pid, signal.SIGINT)
    assert shell.wait(60) in (EXIT_INTERRUPTED, EXIT_WHOLE, *BEFORE_IT_BEGAN)
    nothing_is_lost(tmp_path / "run", expected)


@pytest.mark.parametrize("moment", range(8))
def test_a_lost_terminal(tmp_path, expected, moment):
    prompts, _, takes_s = expected
    hangs_up = moment % 2 == 0  # else as under nohup: it goes on, and writes to a terminal that is gone
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if hangs_up else signal.SIG_IGN)
        os.execve(FAKE[0], command(tmp_path / "run", prompts), ENVIRONMENT)
    _read_for(random.Random(moment).uniform(0, takes_s), terminal)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in ((EXIT_INTERRUPTED, EXIT_WHOLE, *BEFORE_IT_BEGAN) if hangs_up else (EXIT_WHOLE,))
    nothing_is_lost(tmp_path / "run", expected)


def _read_for(seconds, terminal):
    end_s = time.monotonic() + seconds
    with contextlib.suppress(OSError):  # the command ended
        while (left_s := end_s - time.monotonic()) > 0:
            if select.select([terminal], [], [], left_s)[0]:
                os.read(terminal, 1024)


@pytest.mark.parametrize("moment", range(6))
def test_a_reader_that_goes_away(tmp_path, expected, moment):
    prompts, _, takes_s = expected
    process = subprocess.Popen(
        command(tmp_path / "run", prompts), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    time.sleep(random.Random(moment).uniform(0, takes_s))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == EXIT_WHOLE
    nothing_is_lost(tmp_path / "run", expected)


def test_progress_that_cannot_be_read(tmp_path, expected):
    prompts, _, _ = expected
    arguments = command(tmp_path / "run", prompts)[len(FAKE) :]
    done = subprocess.run(
        [sys.executable, "-c", STALE, "front", *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_WHOLE, done.stderr
    assert "Stale file handle" in done.stderr and "Traceback" not in done.stderr
    nothing_is_lost(tmp_path / "run", expected)
