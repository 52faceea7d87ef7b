"""What a check finds, and how checks are run: one that hangs, or fails in an unexpected way, is a finding, too."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from batchgen.errors import in_one_line

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `level`: ok, warn or FAIL; `topic`: what it is about; `advice`: what to do, "" if nothing."""

    level: str
    topic: str
    what: str
    advice: str = ""

    def line(self) -> str:
        """The finding in one line for a person."""
        return f"{self.level:<5} {self.topic:<12} {self.what}{f': {self.advice}' if self.advice else ''}"


@dataclass(frozen=True, slots=True)
class Check:
    """A check, and the seconds that it may take."""

    topic: str
    act: Callable[[], Iterable[Finding]]
    limit_s: float = 10.0


def findings(check: Check) -> list[Finding]:
    """What a check finds. It waits no longer than the check's time limit. Never raises."""
    found: list[Finding] = []

    def act() -> None:
        try:
            found.extend(check.act())
        except Exception as error:  # a check must not end the others
            found.append(Finding(FAIL, check.topic, in_one_line(error)))

    # A thread that hangs in a system call of a file system cannot be ended; as a daemon it keeps nobody.
    thread = threading.Thread(target=act, daemon=True, name=check.topic)
    thread.start()
    thread.join(check.limit_s)
    if thread.is_alive():
        late = f"this check was not over after {check.limit_s:g} s"
        return [*found, Finding(FAIL, check.topic, late, "find out what hangs, such as a file server or a driver")]
    return found


def code_of(levels: Iterable[str]) -> int:
    """The exit code: 0 unless something is a FAIL."""
    return int(FAIL in levels)
