"""The word of rank 0 to the ranks that were started with it: whether the run is planned, refused or over.

It is a note in the run's directory. Its name begins like that of a plan's draft, so planning overlooks it, and the end
of a run sweeps it away.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from batchgen.errors import EXIT_BROKEN, BatchgenError, StoppedError
from batchgen.files import read_fresh, replace, to_json
from batchgen.launch.ranks import Group
from batchgen.machine import process
from batchgen.machine.process import StopEvent
from batchgen.paths import RunDir
from batchgen.plan.drafts import sweep_words
from batchgen.shards.leases import Watch

_BEAT_S = 5.0
_POLL_S = 0.25
_PATIENCE_S = 300.0  # for a rank 0 that has not begun


_LAST = ("ready", "over")


@dataclass(frozen=True, slots=True)
class Word:
    """What rank 0 says: it is planning, the run is `ready` to be worked on, or all is `over` with this exit code."""

    state: str
    code: int = 0


class Speaker:
    """Rank 0 of a group, which leaves its word for the others; or a command that was started alone, and has none."""

    def __init__(self, run: RunDir, group: Group | None) -> None:
        self._run = run
        self._path = None if group is None else run.word(group.id)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._word = Word("planning")
        self._beat = 0

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Renew the word within this context. If an error ends it, the word is that all is over, with its exit code.

        Raises OSError.
        """
        if self._path is None:
            yield
            return
        self._run.root.mkdir(parents=True, exist_ok=True)
        sweep_words(self._run)
        self._write()
        threading.Thread(target=self._beat_on, daemon=True, name="word").start()
        try:
            yield
        except BaseException as error:
            with suppress(OSError):
                self.say(Word("over", error.exit_code if isinstance(error, BatchgenError) else EXIT_BROKEN))
            raise
        finally:
            self._over.set()

    def say(self, word: Word) -> None:
        """Leave this word for the others. Raises OSError."""
        self._word = word
        self._write()

    def end(self, code: int) -> None:
        """The work of rank 0 is over with this exit code: ranks that wait get to know it, or have begun long ago."""
        self._over.set()
        if self._word.state == "planning":
            self.say(Word("over", code))
        elif self._path is not None:
            with self._lock, suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _beat_on(self) -> None:
        while not self._over.wait(_BEAT_S):
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        with self._lock:
            self._beat += 1
            content = {"state": self._word.state, "code": self._word.code, "beat": self._beat}
            replace(self._path, to_json(content | {"process": process.identity()}).encode(), durable=False)


def listen(run: RunDir, group: Group, timeout_s: float, stop: StopEvent) -> Word:
    """Wait until rank 0 has prepared the run; return its word.

    Raises BatchgenError where rank 0 has ended without one, or has not begun within 5 minutes; StoppedError.
    """
    path = run.word(group.id)
    watch = Watch(timeout_s)
    began_s = time.monotonic()
    first, has_lived = None, False
    while not stop.wait(_POLL_S):
        is_alive = watch.is_live(path)
        content = read_fresh(path)
        first = content if first is None else first
        word, host = _read(content)
        # An id may have been that of an earlier group: its word is old until it changes, or its process is seen here.
        is_ours = group.is_unique or content != first or (is_alive and host == socket.gethostname())
        if is_ours and word is not None and word.state in _LAST:
            return word
        if has_lived and not is_alive:
            raise BatchgenError(f"rank 0 ended before {run.root} was prepared: see what it said")
        has_lived = has_lived or (is_ours and is_alive)
        if not has_lived and time.monotonic() - began_s > _PATIENCE_S:
            raise BatchgenError(f"rank 0 gave no sign in {run.root} for {_PATIENCE_S:.0f} s: is it running there?")
    raise StoppedError("stopped while rank 0 prepared the run; the same command goes on")


def _read(content: bytes | None) -> tuple[Word | None, str | None]:
    """The word, and the host of rank 0, as far as the content tells."""
    try:
        said = json.loads(content or b"")
        return Word(said["state"], int(said["code"])), said["process"]["host"]
    except (ValueError, KeyError, TypeError):
        return None, None
