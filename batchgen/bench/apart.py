"""Asks a process of its own to measure a row. Told to stop, it ends that process with all that it started."""

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import psutil

from batchgen.bench.place import Place
from batchgen.errors import ModelError, StoppedError
from batchgen.files import to_json
from batchgen.machine.process import StopEvent

_COMMAND = (sys.executable, "-m", "batchgen.bench.row")
_LOOK_EVERY_S = 0.3


def ask(request: dict[str, Any], place: Place, stop: StopEvent) -> dict[str, Any]:
    """What `batchgen.bench.row` answers; one that ends without an answer `failed`, with its last words.

    Raises StoppedError once `stop` is set, and ModelError for a problem that no row can be measured with.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        _COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=place.environment(), process_group=0
    )
    said, errors = _answered(process, to_json(request), stop)
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        last = (errors.strip().splitlines() or [""])[-1]
        killed = "it was killed; memory may have run out" if process.returncode == -9 else "it ended without a word"
        return {"failed": last or killed}
    if "problem" in answer:
        raise ModelError(answer["problem"])
    return answer


def _answered(process: "subprocess.Popen[str]", request: str, stop: StopEvent) -> tuple[str, str]:
    given: str | None = request
    try:
        while not stop.is_set():
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(given, timeout=_LOOK_EVERY_S)
            given = None  # communicate goes on with what it was given first
        raise StoppedError("stopped; what is measured is kept, and the same command goes on")
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.kill()
    process.communicate()
