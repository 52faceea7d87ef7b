"""Whether the work is to end early: at its deadline, or because somebody asked for it in the run's directory.

Or because what started this process together with others is gone: then nobody would end it any more.
"""

import json
import os
import threading
import time

from batchgen.files import read_fresh
from batchgen.launch.deadline import Deadline
from batchgen.machine.process import StopEvent
from batchgen.paths import RunDir

_LOOK_EVERY_S = 2.0
_LOOK_ALONE_EVERY_S = 15.0  # for a worker that nobody watches: hundreds of them may ask one file server
_WAKE_S = 1.0


class Drain:
    """Sets `stop` when the work is to end. `by_limit`: whether a limit of time was what ended it.

    `parent`: the process that must not end before this one, None where there is none.
    """

    def __init__(self, run: RunDir, stop: StopEvent, ends: Deadline | None, parent: int | None = None) -> None:
        self._run, self._stop, self._ends, self._parent = run, stop, ends, parent
        self._every_s, self._next_s = _LOOK_EVERY_S, 0.0
        self.by_limit = False

    def look(self) -> None:
        """Set `stop` if it is time to. It may be called as often as one likes, and never raises OSError."""
        if self._stop.is_set():
            return
        if self._ends is not None and time.time() >= self._ends.at_s:
            self.by_limit = self._ends.is_limit
            self._stop.ask(self._ends.why)
        elif self._parent not in (None, os.getppid()):
            self._stop.ask("what started the ranks is gone")
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            if (why := asked(self._run)) is not None:
                self._stop.ask(why)

    def look_on(self) -> None:
        """Look now, and keep looking from a thread of its own, for a worker that has no launcher."""
        self._every_s = _LOOK_ALONE_EVERY_S
        self.look()

        def wait() -> None:
            while not self._stop.wait(_WAKE_S):
                self.look()

        threading.Thread(target=wait, daemon=True, name="drain").start()


def asked(run: RunDir) -> str | None:
    """Who asked in the run's directory that all workers end, in words; None where nobody did."""
    content = read_fresh(run.stop)
    if content is None:
        return None
    try:
        return f"{json.loads(content)['by']} asked all workers to end"
    except (ValueError, KeyError, TypeError):
        return f"{run.stop} asks all workers to end"
