"""Whether a store answers, and when it is tried again."""

import random
import time
from dataclasses import dataclass

_LONGEST_PAUSE_S = 300.0


@dataclass
class Outage:
    """Whether a store answers, and when it is tried again. Times are by the monotonic clock, in s."""

    since_s: float | None = None
    _fails: int = 0
    _again_s: float = 0.0

    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return max(0.0, self._again_s - time.monotonic())

    def lasts_s(self) -> float:
        """For how long it has not answered."""
        return 0.0 if self.since_s is None else time.monotonic() - self.since_s

    def failed(self) -> bool:
        """Note that it failed; True for the first time in a row."""
        now_s = time.monotonic()
        is_first, self.since_s = self.since_s is None, self.since_s or now_s
        pause_s = min(_LONGEST_PAUSE_S, 2.0**self._fails) * random.uniform(0.75, 1.25)
        self._fails, self._again_s = self._fails + 1, now_s + pause_s
        return is_first

    def is_over(self) -> bool:
        """Note that it answers; True if it did not before."""
        was, self.since_s, self._fails, self._again_s = self.since_s is not None, None, 0, 0.0
        return was
