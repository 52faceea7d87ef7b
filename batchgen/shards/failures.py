"""Crashes of workers, and what they mean for the rows that were under way.

Before each call of the model an attempt notes the rows under way in a file beside its tar. The launcher that waits for
the worker turns a crash into a file in failures/, and a resume reads only these files. Rows that crashed in two
processes (on two GPUs where two are at work) are tried in halves, down to a single row, which is given up when it has
crashed in two processes itself. A kill, a time limit or a lost machine says nothing about the rows and never counts.
"""

import re
import signal
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.errors import BatchgenError
from batchgen.events import EventLog, now, read_events
from batchgen.files import seal, sync_directory, unseal, write_new
from batchgen.paths import RunDir, struck
from batchgen.shards.records import Header
from batchgen.types import Shard

CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
# A device that crashes on this many shards in a row is at fault itself.
SHARDS_IN_A_ROW = 3
# What CUDA says when a device is gone, broken or full, whatever it computed.
_DEVICE_FAULT = re.compile(
    r"\bECC\b|NVLink|GPU is lost|device lost|fallen off the bus|unspecified launch failure|hardware stack error|"
    r"no CUDA-capable device|busy or unavailable|CUDA error: (unknown error|initialization error)|driver shutting down|"
    r"out of memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash of a worker. `rows` are places in the shard, [from, to); the range is empty where a control crashed."""

    shard: int
    rows: tuple[int, int]
    reason: str
    gpu: str  # host and device
    gpus: int  # how many were at work for the same command
    at: str
    path: Path


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows of a batch (places in the batch) to make together. If there is a reason, they are given up for it."""

    rows: range
    reason: str | None = None


class RowsAt:
    """An attempt's note of the rows under way. It only has to outlive the process, so nothing forces it to the disk."""

    def __init__(self, path: Path, header: Header) -> None:
        """`header`: that of the attempt, which names the run and the worker."""
        self._log = EventLog(path)
        self._noted: tuple[int, int] | None = None
        self._log.add("begin", run_id=header["run_id"], worker=header["worker"], process=header["process"])

    def note(self, first_row: int, stop_row: int) -> None:
        """These rows of the shard are under way."""
        if (first_row, stop_row) != self._noted:
            self._log.add("rows", rows=[first_row, stop_row])
            self._noted = first_row, stop_row

    def note_error(self, error: Exception) -> None:
        """Note the error that ended the work, if the rows may have caused it."""
        if may_be_the_rows(error):
            said = str(error).strip().partition("\n")[0] or "without a message"
            self._log.add("error", error=f"{type(error).__name__}: {said}")

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def may_be_the_rows(error: Exception) -> bool:
    """Whether the rows may have caused an error. Errors of memory, disk, a lost device or on purpose do not count."""
    on_disk = isinstance(error, OSError) and error.errno is not None  # an encoder's errors have no number
    if on_disk or isinstance(error, (MemoryError, BatchgenError)):
        return False
    return not _DEVICE_FAULT.search(str(error))


def record(run: RunDir, run_id: str, worker: str, exit_code: int, gpu: str, gpus: int) -> Crash | None:
    """Turn the end of a worker into a file in failures/, if it was a crash with rows under way."""
    for files in run.attempts():
        try:
            events = list(read_events(files.at))
        except OSError:
            continue
        if not events or (events[0].get("worker"), events[0].get("run_id")) != (worker, run_id):
            continue
        crash = _crash_of(run, files.shard, files.attempt, events, exit_code, gpu, gpus)
        if crash is not None:
            _write(run, run_id, crash, events[0])
        files.at.unlink(missing_ok=True)
        return crash
    return None


def _crash_of(
    run: RunDir, shard: int, attempt: str, events: list[dict[str, Any]], exit_code: int, gpu: str, gpus: int
) -> Crash | None:
    noted = [event["rows"] for event in events if event.get("event") == "rows"]
    errors = [event["error"] for event in events if event.get("event") == "error"]
    by_signal = -exit_code in CRASH_SIGNALS
    if not noted or not (by_signal or (errors and exit_code > 0)):
        return None
    reason = f"the worker was ended by {signal.Signals(-exit_code).name}" if by_signal else str(errors[-1])
    first_row, stop_row = noted[-1]
    return Crash(shard, (first_row, stop_row), reason, gpu, gpus, now(), run.failure(shard, attempt))


def _write(run: RunDir, run_id: str, crash: Crash, begun: dict[str, Any]) -> None:
    run.failures.mkdir(exist_ok=True)
    facts = asdict(crash) | {"run_id": run_id, "worker": begun.get("worker"), "process": begun.get("process")}
    del facts["path"]
    with suppress(FileExistsError):
        write_new(crash.path, seal(facts))
    sync_directory(run.failures)
    sync_directory(run.root)


def strike(crashes: Iterable[Crash]) -> None:
    """Make crashes no longer count: the device was at fault."""
    for crash in crashes:
        with suppress(FileNotFoundError):
            crash.path.rename(struck(crash.path))


def read_crashes(run: RunDir, run_id: str, known: dict[Path, Crash] | None = None) -> dict[int, list[Crash]]:
    """The crashes that count, by shard, the oldest first.

    `known`: what a caller that asks again and again has read before, which this adds to: the files never change.
    """
    known = {} if known is None else known
    found: dict[int, list[Crash]] = {}
    for path in run.failure_files():
        crash = known.get(path) or _read(path, run_id)
        if crash is not None:
            known[path] = crash
            found.setdefault(crash.shard, []).append(crash)
    return {shard: sorted(crashes, key=lambda crash: crash.at) for shard, crashes in found.items()}


def _read(path: Path, run_id: str) -> Crash | None:
    try:
        facts = unseal(path.read_bytes())
    except OSError:
        return None
    if facts is None or facts.get("run_id") != run_id:
        return None
    first_row, stop_row = facts["rows"]
    names = ("shard", "reason", "gpu", "gpus", "at")
    return Crash(rows=(first_row, stop_row), path=path, **{name: facts[name] for name in names})


def suspects_last(crashes: dict[int, list[Crash]], shards: Iterable[int]) -> list[int]:
    """The shards in the same order, except that shards that crashed come last, with the most tried of them first."""
    return sorted(shards, key=lambda shard: (shard in crashes, -len(crashes.get(shard, ()))))


def trials(shard: Shard, crashes: Collection[Crash]) -> list[list[Trial]]:
    """How to make each batch of a shard: in one go, or in pieces if it crashed before."""
    found = []
    first_row = 0
    for batch in shard.batches:
        count = len(batch.prompts)
        own = [
            replace(crash, rows=(crash.rows[0] - first_row, crash.rows[1] - first_row))
            for crash in crashes
            if max(first_row, crash.rows[0]) < min(first_row + count, crash.rows[1])
        ]
        found.append(_halved(own, range(count)) if _is_proven(own) else [Trial(range(count))])
        first_row += count
    return found


def _halved(crashes: list[Crash], rows: range) -> list[Trial]:
    # One more crash is enough to halve rows again, since that costs only time.
    if len(rows) == 1:
        return [Trial(rows, crashes[-1].reason if _is_proven(crashes) else None)]
    middle = rows.start + len(rows) // 2
    pieces = []
    for half in (range(rows.start, middle), range(middle, rows.stop)):
        inside = [crash for crash in crashes if half.start <= crash.rows[0] and crash.rows[1] <= half.stop]
        pieces += _halved(inside, half) if inside else [Trial(half)]
    return pieces


def _is_proven(crashes: Sequence[Crash]) -> bool:
    """Whether the rows are at fault: they crashed in two processes, and on two GPUs unless there was only one."""
    return len(crashes) > 1 and (len({crash.gpu for crash in crashes}) > 1 or crashes[-1].gpus < 2)


def is_device_at_fault(crashes: Sequence[Crash]) -> bool:
    """Whether the crashes of one worker since its last progress point to its device and not to the rows."""
    without_rows = any(crash.rows[0] == crash.rows[1] for crash in crashes)
    return without_rows or len({crash.shard for crash in crashes}) >= SHARDS_IN_A_ROW
