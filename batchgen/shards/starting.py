"""What workers do before their first image: load the model, then measure memory or wait for who measures it."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.events import seconds_of
from batchgen.machine import process
from batchgen.paths import RunDir
from batchgen.units import duration

_TAIL_BYTES = 32 << 10
# What a worker does after the event, until it has begun with an image.
_AFTER = {
    "start": "loading the model",
    "spread": "waiting for their turn to load the model",
    "staging": "copying the model",
    "staged": "loading the model",
    "not_staged": "loading the model",
    "load_failed": "trying again to load the model",
    "loaded": "choosing a policy",
    "not_probed": "choosing a policy",
    "probe_failed": "measuring memory",
    "probed": "choosing a policy",
    "chosen": "choosing a policy",
    "policy": "beginning",
}


@dataclass(frozen=True, slots=True)
class Starting:
    """A worker that has not begun with an image: what it does, and since when in s since the epoch."""

    worker: str
    does: str
    since_s: float


def starting(run: RunDir) -> list[Starting]:
    """The workers that are alive and have not begun with an image yet, by name. Raises OSError."""
    alive = set(_alive(run))
    found = []
    for path in run.event_logs() if alive else []:
        events = list(_ends(path))
        began = events[0] if events else {}
        host, _, _ = path.stem.rpartition("-")[0].rpartition("-")
        if (host, began.get("pid")) not in alive or events[-1].get("event") not in _AFTER:
            continue
        if any(event.get("event") in ("shard", "made") for event in events):
            continue  # between two shards
        since = next(event for event in events if _AFTER.get(event.get("event", "")) == _AFTER[events[-1]["event"]])
        with suppress(KeyError, TypeError, ValueError):
            since_s = seconds_of(since["at"])
            found.append(Starting(path.stem, _AFTER[events[-1]["event"]], since_s))
    return found


def starting_line(workers: list[Starting], now_s: float) -> str | None:
    """What these workers do, and for how long, in a few words; None for none."""
    parts = []
    for does in dict.fromkeys(worker.does for worker in workers):
        same = [worker for worker in workers if worker.does == does]
        longest_s = max(0.0, now_s - min(worker.since_s for worker in same))
        who = "1 worker is" if len(same) == 1 else f"{len(same)} workers are"
        parts.append(f"{who} {does}, for {duration(longest_s)}")
    return "; ".join(parts) or None


def _alive(run: RunDir) -> Iterator[tuple[str, int]]:
    """(host, pid) of each process that works by the plan."""
    for mark in run.marks():
        with suppress(OSError, ValueError, KeyError, TypeError):
            who = json.loads(mark.read_bytes())["process"]
            if not process.is_gone(who):
                yield str(who["host"]), int(who["pid"])


def _ends(path: Path) -> Iterator[dict[str, Any]]:
    """The first events of a log, and the last ones where it is long; torn lines are left out."""
    with path.open("rb") as file:
        data = file.read(_TAIL_BYTES)
        rest = os.fstat(file.fileno()).st_size - len(data)
        if rest > 0:
            file.seek(max(len(data), len(data) + rest - _TAIL_BYTES))
            data += b"\n" + file.read()
    for line in data.splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
