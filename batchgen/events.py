"""A worker's own log, one JSON line for each event. It is for people, counts and restarts; resume never reads it."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchgen.files import to_json


class EventLog:
    """Appends events to the file of one worker. An event that cannot be written is lost; the work goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def add(self, event: str, **facts: Any) -> None:
        """Append a line with the time, the event and its facts."""
        try:
            os.write(self._fd, to_json({"at": now(), "event": event} | facts).encode() + b"\n")
        except (OSError, ValueError):  # a full disk, or a figure that is not a number
            return

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a worker's log in order, except for lines that a crash has torn. Raises OSError."""
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def seconds_of(time_text: str) -> float:
    """A time as logs have it, in s since the epoch. Raises ValueError, and TypeError for what is no text."""
    return datetime.fromisoformat(time_text).timestamp()


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
