"""Who a process is, whether it has ended, and how it is asked to end. All this is known only on its own machine."""

import os
import signal
import socket
import threading
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_asked = threading.Event()
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity() -> dict[str, Any]:
    """This process: its host, boot, pid and start time (s since the epoch)."""
    return dict(_identity(os.getpid()))


@cache
def _identity(pid: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "started": psutil.Process(pid).create_time()}


def started_s() -> float:
    """When this process began, in s since the epoch."""
    return float(psutil.Process().create_time())


def worker_name(rank: int) -> str:
    """A name that no other worker has: the host, the rank, and 32 random bits in hexadecimal."""
    return f"{socket.gethostname()}-{rank}-{uuid.uuid4().hex[:8]}"


def host_of(worker: str) -> str:
    """The host in the name of a worker."""
    return worker.rpartition("-")[0].rpartition("-")[0]


def element_of(environ: Mapping[str, str]) -> str | None:
    """The element of a job array, the step or the job of SLURM that this process is in, as <job>_<task>, <job>.<step>.

    None outside of SLURM.
    """
    job, array, task, step = (
        environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "STEP_ID")
    )
    if array and task:
        return f"{array}_{task}"
    return (f"{job}.{step}" if step.isdecimal() else job) or None


def is_gone(who: Any) -> bool:
    """Whether the process of an `identity` has certainly ended; False if that cannot be known on this machine."""
    if not isinstance(who, dict) or who.get("host") != socket.gethostname():
        return False
    boot, _, namespace = str(who.get("boot")).partition(" ")
    boot_now, _, namespace_now = _boot().partition(" ")
    if boot != boot_now:
        return True  # this machine has been restarted since
    if namespace != namespace_now:
        return False
    try:
        process = psutil.Process(who.get("pid"))
        # A pid may be used again, but not with the same start time. A zombie does no more work.
        other = abs(process.create_time() - float(who.get("started", 0))) > 2.0
        return other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, TypeError, ValueError):
        return False


def _boot() -> str:
    """This boot, and on Linux the pid namespace, because a container's pids mean nothing in another container."""
    if not _BOOT_ID.exists():
        return str(round(psutil.boot_time()))
    return f"{_BOOT_ID.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


class StopEvent(threading.Event):
    """It is set when the process is asked to end.

    `by`: the name of the signal that asked first; None before, and where no signal did. `why`: why, in words, where it
    was not a signal that asked. `again_ends`: whether Ctrl-C ends the process at once when it is set already.
    """

    by: str | None = None
    why: str | None = None
    again_ends = False

    def ask(self, why: str) -> None:
        """Set it for a reason that is no signal, unless it is set already."""
        if not self.is_set():
            self.why = why
            self.set()


def catch_signals(stop: StopEvent, second_ctrl_c_ends: bool = False) -> None:
    """Make the signals that ask a process to end set `stop`. A signal that is ignored (nohup) stays ignored.

    With `second_ctrl_c_ends`, Ctrl-C raises KeyboardInterrupt if `stop` is already set.
    """
    stop.again_ends = second_ctrl_c_ends

    def handle(number: int, _: object) -> None:
        _asked.set()
        if number == signal.SIGINT and second_ctrl_c_ends and stop.is_set():
            raise KeyboardInterrupt
        stop.by = stop.by or signal.Signals(number).name
        stop.set()

    for name in STOP_SIGNALS:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def was_asked() -> bool:
    """Whether one of the signals that `catch_signals` hears has come to this process."""
    return _asked.is_set()


def stop_with_parent(stop: threading.Event) -> None:
    """Set `stop` when standard input ends, because a worker must not outlive the command that started it."""

    def wait() -> None:
        while os.read(0, 1024):  # sys.stdin's lock would abort the interpreter when it exits
            continue
        stop.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()
