"""Who works on what, for efficiency only: a lease saves double work, and the commit makes a double harmless.

A lease is stale when its process is known to be gone, or when its content has not changed for a while by the
reader's own monotonic clock. Clocks of two machines, and times of files, are never compared.
"""

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen import process
from batchgen.errors import UserError
from batchgen.files import is_plain, put_new, replace, to_json
from batchgen.paths import RunDir

BEAT_S = 1.0


@dataclass
class Watch:
    """What a reader remembers of leases: the content last seen, and since when it is unchanged."""

    timeout_s: float
    _seen: dict[Path, tuple[bytes, float]] = field(default_factory=dict)

    def is_live(self, path: Path) -> bool:
        """Whether somebody holds the lease at `path`, as far as this reader can tell."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            self._seen.pop(path, None)
            return False
        before, since = self._seen.get(path, (None, 0.0))
        if content != before:
            since = time.monotonic()
            self._seen[path] = (content, since)
        if time.monotonic() - since > self.timeout_s:
            return False
        return not process.is_gone(read_lease(content).get("process"))

    def is_stale(self, path: Path) -> bool:
        """Whether the lease at `path` is there and of somebody gone.

        One that is not there is not stale: another worker may take it now, and must not be overwritten.
        """
        return not self.is_live(path) and path in self._seen


def live_leases(run: RunDir, watch: Watch) -> dict[Path, bytes]:
    """The leases that somebody holds, with their contents. Raises UserError for one that is no plain file."""
    live = {}
    for path in sorted(run.leases.glob("[0-9]*")):
        if not is_plain(path) and os.path.lexists(path):
            raise UserError(f"{path} is not a plain file, and no lease: remove it")
        if watch.is_live(path):
            with suppress(FileNotFoundError):  # released at this moment
                live[path] = path.read_bytes()
    return live


def read_lease(content: bytes) -> dict[str, Any]:
    """What a lease says; empty where it cannot be read."""
    try:
        lease = json.loads(content)
    except ValueError:
        return {}
    return lease if isinstance(lease, dict) else {}


class Lease:
    """One worker's lease on one shard, kept alive by a thread until it is released."""

    def __init__(self, path: Path, worker: str) -> None:
        self._path = path
        self._content = {"worker": worker, "process": process.identity()}
        self._beat = 0
        self._rows = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    @classmethod
    def take(cls, run: RunDir, shard: int, worker: str, watch: Watch) -> "Lease | None":
        """A lease on the shard, or None while somebody else holds one."""
        path = run.lease(shard)
        lease = cls(path, worker)
        if not path.exists():
            if not put_new(path, lease._line()):
                return None
        elif watch.is_stale(path):
            replace(path, lease._line(), durable=False)
        else:
            return None
        lease._thread.start()
        return lease

    def note_progress(self, rows: int) -> None:
        """Tell readers how many rows of the unit under way are denoised; it travels with the next beat."""
        self._rows = rows

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        try:
            return read_lease(self._path.read_bytes()).get("process") == self._content["process"]
        except OSError:
            return False

    def _line(self) -> bytes:
        return to_json(self._content | {"rows": self._rows, "beat": self._beat}).encode()

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat += 1
            try:
                if not self._is_ours():  # taken over while this process was stopped: let it be
                    return
                replace(self._path, self._line(), durable=False)
            except OSError:
                continue  # a full disk must not end the work: the lease only saves some
