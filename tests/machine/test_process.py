"""Who a process is, whether it has ended, and the signals that ask it to end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from batchgen.machine import process
from batchgen.machine.process import (
    StopEvent,
    catch_signals,
    element_of,
    identity,
    is_gone,
    started_s,
    stop_with_parent,
    worker_name,
)  # fmt: skip


def test_a_process_that_runs_is_not_gone_and_one_that_ended_is() -> None:
    assert not is_gone(identity())
    code = "import json; from batchgen.machine.process import identity; print(json.dumps(identity()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert is_gone(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"started": 1.0}, True),  # the pid belongs to another process by now
        ({"boot": "another"}, True),
        ({"host": "another"}, False),
        ({"pid": "1"}, False),
    ],
)
def test_only_this_machine_and_this_boot_can_tell(change: dict[str, Any], gone: bool) -> None:
    assert is_gone(identity() | change) is gone


def test_what_is_no_identity_is_not_gone() -> None:
    assert not is_gone(None) and not is_gone([1])


def test_names_of_workers_differ() -> None:
    assert worker_name(3) != worker_name(3)
    assert worker_name(3).rsplit("-", 1)[0].endswith("-3")


@pytest.fixture
def handlers() -> Any:
    before = {name: signal.getsignal(getattr(signal, name)) for name in process.STOP_SIGNALS}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


def test_a_signal_sets_stop_and_a_second_ctrl_c_interrupts(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopEvent()
    catch_signals(stop, second_ctrl_c_ends=True)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "as under nohup"
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(5) and stop.by == "SIGTERM"
    assert stop.again_ends and not StopEvent().again_ends
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_first_who_asks_gives_the_reason() -> None:
    stop = StopEvent()
    stop.ask("it is late")
    stop.ask("it is later")
    assert (stop.is_set(), stop.why, stop.by) == (True, "it is late", None)


@pytest.mark.parametrize(
    ("environ", "element"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "41"}, "41"),
        ({"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0"}, "41.0"),
        ({"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "2", "SLURM_STEP_ID": "0"}, "41_2"),
    ],
)
def test_an_element_of_an_array_has_a_name_and_so_have_steps_and_jobs(
    environ: dict[str, str], element: str | None
) -> None:
    assert element_of(environ) == element


def test_when_this_process_began() -> None:
    assert 0 < time.time() - started_s() < 24 * 3600


def test_a_worker_stops_when_its_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    real = os.read
    monkeypatch.setattr("os.read", lambda _, count: real(read, count))
    stop = threading.Event()
    stop_with_parent(stop)
    assert not stop.wait(0.05)
    os.close(write)
    assert stop.wait(5)
    os.close(read)
