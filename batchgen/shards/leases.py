"""Who works on what. Leases only save double work: if two workers make one shard, the commit lets only one of them win.

The holder renews its lease at each of its steps, not from a separate thread: when a kernel hangs, the lease is no
longer written and another worker takes over. A lease is stale when its process is known to be gone, or when its content
has not changed for the greater of the timeout and ten times the slowest step that it states, by the reader's own
monotonic clock. During the holder's first step the limit is five timeouts of the reader, since kernels may be compiled
in it or the device may be slow. Clocks of two machines and times of files are never compared.
"""

import errno
import json
import math
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.errors import UserError
from batchgen.files import is_plain, put, put_new, read, replace, to_json
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.shards.records import LeaseContent

# A lease is written at most this often, or four times within a shorter timeout.
WRITE_EVERY_S = 15.0
_WRITES_A_TIMEOUT = 4.0
_STEPS_OF_SILENCE = 10
_TIMEOUTS_OF_A_FIRST_STEP = 5


@dataclass(frozen=True, slots=True)
class Held:
    """What a lease says about its holder; the defaults stand for a lease that cannot be read.

    `rows`: how many rows of the shard are denoised. `step_s`: the holder's slowest step so far, None during its first.
    """

    worker: str = "unknown"
    process: Any = None
    rows: int = 0
    step_s: float | None = 0.0
    token: str | None = None


def read_lease(content: bytes) -> Held:
    """The fields of a lease, as far as they can be read."""
    try:
        says = json.loads(content)
    except (ValueError, RecursionError):
        return Held()
    if not isinstance(says, dict):
        return Held()
    rows, worker, token = (says.get(name) for name in ("rows", "worker", "token"))
    step_s = says.get("step_s", 0.0)
    return Held(
        worker if isinstance(worker, str) else "unknown",
        says.get("process"),
        rows if isinstance(rows, int) and rows > 0 else 0,
        None if step_s is None else _seconds(step_s),
        token if isinstance(token, str) else None,
    )


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else 0.0


@dataclass
class Watch:
    """What a reader remembers about leases: the content last seen, and since when it has not changed."""

    timeout_s: float
    _seen: dict[Path, tuple[bytes, float]] = field(default_factory=dict)

    def live(self, path: Path) -> bytes | None:
        """The content of the lease at `path` while somebody holds it, as far as this reader can tell; else None."""
        content = _content(path)
        if content is None:
            self._seen.pop(path, None)
            return None
        return self.judge(path, content)

    def judge(self, path: Path, content: bytes) -> bytes | None:
        """The content that was just read of the lease at `path`, while somebody holds it; else None."""
        before, since = self._seen.get(path, (None, 0.0))
        if content != before:
            since = time.monotonic()
            self._seen[path] = (content, since)
        held = read_lease(content)
        if time.monotonic() - since > self.patience_s(held):
            return None
        return None if process.is_gone(held.process) else content

    def patience_s(self, held: Held) -> float:
        """How long the lease of this holder may stay unchanged."""
        if held.step_s is None:
            return _TIMEOUTS_OF_A_FIRST_STEP * self.timeout_s
        return max(self.timeout_s, _STEPS_OF_SILENCE * held.step_s)

    def is_live(self, path: Path) -> bool:
        """Whether somebody holds the lease at `path`, as far as this reader can tell."""
        return self.live(path) is not None

    def stale(self, path: Path) -> bytes | None:
        """The content of the lease at `path` if it is there and its holder is gone; else None.

        A lease that is not there is not stale: another worker may take it now and must not be overwritten.
        """
        return None if self.is_live(path) or path not in self._seen else self._seen[path][0]


def _content(path: Path) -> bytes | None:
    """What a lease holds, nothing where it cannot be read; None where it is not there."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except OSError:  # for example a stale handle of a network file system: the lease says nothing for now
        return b""


def _removed(path: Path, stale: bytes) -> bool:
    """Remove a lease that has this content. Of several workers that do so at once, one succeeds."""
    if path.is_dir() and not path.is_symlink():  # not a lease, and somebody's own: it is not moved
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    try:
        if _content(aside) == stale:
            return True
        put(aside, path)  # another worker took it over just now
        return False
    finally:
        aside.unlink(missing_ok=True)


def live_leases(run: RunDir, watch: Watch) -> dict[Path, bytes]:
    """The leases on shards that somebody holds, with their contents.

    Raises UserError for one that is not a plain file, and OSError.
    """
    live = {}
    for path in run.shard_leases():
        if not is_plain(path) and os.path.lexists(path):
            raise UserError(f"{path} is not a plain file, so it cannot be a lease: remove it")
        if (content := watch.live(path)) is not None:
            live[path] = content
    return live


class Lease:
    """What one worker holds: a shard, or the right to probe. It stays alive while `beat` is called.

    `beat` may be called from any thread, as often as there is progress: most calls only look at the clock.
    """

    def __init__(self, path: Path, worker: str, timeout_s: float, step_s: float | None = None) -> None:
        self._path = path
        self._worker, self._process, self._token = worker, process.identity(), uuid.uuid4().hex
        self._write_every_s = min(WRITE_EVERY_S, timeout_s / _WRITES_A_TIMEOUT)
        self._lock = threading.Lock()
        self._beats = 0
        self._rows = 0
        self._is_over = False  # released, or taken over while this process was stopped
        self._last_s = self._written_s = time.monotonic()
        self.step_s = step_s

    @classmethod
    def take(cls, run: RunDir, shard: int, worker: str, watch: Watch, step_s: float | None = None) -> "Lease | None":
        """A lease on the shard, or None while somebody else holds one.

        `step_s`: the slowest step of this worker so far, where it knows one from earlier shards. Raises OSError.
        """
        return cls(run.lease(shard), worker, watch.timeout_s, step_s)._taken(watch)

    @classmethod
    def take_named(cls, path: Path, worker: str, watch: Watch) -> "Lease | None":
        """The lease at `path`, or None while somebody else holds it. Raises OSError."""
        if path.exists() and watch.is_live(path):  # who waits asks often, and an attempt to take it costs more
            return None
        return cls(path, worker, watch.timeout_s)._taken(watch)

    def _taken(self, watch: Watch) -> "Lease | None":
        if put_new(self._path, self._line()):
            return self
        stale = watch.stale(self._path)
        return self if stale is not None and _removed(self._path, stale) and put_new(self._path, self._line()) else None

    def beat(self, rows: int | None = None) -> None:
        """State that the holder has done a step: readers see it within `WRITE_EVERY_S`. Never raises OSError.

        `rows`: how many rows of the shard are denoised by now, where that is known.
        """
        with self._lock:
            now_s = time.monotonic()
            self.step_s = max(self.step_s or 0.0, now_s - self._last_s)
            self._last_s = now_s
            self._rows = self._rows if rows is None else rows
            if self._is_over or now_s - self._written_s < self._write_every_s:
                return
            self._written_s = now_s
            self._beats += 1
            with suppress(OSError):  # a full disk must not end the work
                self._is_over = not self._is_ours()
                if not self._is_over:
                    replace(self._path, self._line(), durable=False)

    def release(self) -> None:
        """Give the lease back. Never raises OSError: one that cannot be removed goes stale."""
        with self._lock, suppress(OSError):
            self._is_over = True
            if self._is_ours():
                self._path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        try:
            return read_lease(read(self._path)).token == self._token
        except FileNotFoundError:
            return False

    def _line(self) -> bytes:
        step_s = None if self.step_s is None else round(self.step_s, 3)
        content: LeaseContent = {
            "worker": self._worker,
            "process": self._process,
            "token": self._token,
            "rows": self._rows,
            "step_s": step_s,
            "beat": self._beats,
        }
        return to_json(content).encode()
