"""What a worker's log tells of it: who it is, what it did last, and what it made of late. Pure."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from batchgen.events import seconds_of
from batchgen.machine.process import host_of
from batchgen.shards.ends import Ends

# What a worker does after the event, until it has begun with an image.
BEFORE_THE_FIRST_IMAGE = {
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
    "compiling": "compiling the model",
    "levers": "choosing a policy",
    "compiled": "beginning",
    "policy": "beginning",
}
# The last event of a worker that has left, and how it left.
LAST = {"end": "ended", "left": "ended", "renew": "ended", "drain": "drained", "error": "crashed"}
# What was made longer before the last unit says nothing about what is made of late.
_RECENT_S = 900.0
# A unit begins after one of these.
_BETWEEN_UNITS = ("policy", "shard", "made", "commit", "commit_lost")


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that a worker made together, from when until when in s since the epoch, by the file server's clock."""

    shard: int
    batch: int
    images: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """What the log of a worker tells. Times in s since the epoch.

    `does`: what it does before its first image, and `since_s` since when; None once it has begun. `left`: ended,
    drained, stopped (by what a person has to mend) or crashed, with `error` where it said one; None while it has not
    said that it leaves. `rows`: how many rows of `shard`, the one that it took last, are made. `units`: those made of
    late. `written_s`: when it wrote last.
    """

    worker: str
    host: str
    rank: int | None
    pid: int | None
    element: str | None
    device: str | None
    started_s: float
    does: str | None
    since_s: float
    left: str | None
    error: str | None
    shard: int | None
    rows: int
    units: tuple[Unit, ...]
    written_s: float


def read_log(worker: str, ends: Ends) -> Told | None:
    """What the ends of a worker's log tell; None where they hold no event."""
    events = [*_events(ends.head), *_events(ends.tail)]
    if not events:
        return None
    first, last = events[0], events[-1]
    # The server stamped the log when the worker wrote its last event: that ties the worker's clock to the server's.
    offset_s = ends.written_s - last["at_s"]
    does, since_s = _before_the_first(events)
    shard, rows = _shard_of(events)
    left = LAST.get(last["event"])
    if left == "crashed" and last.get("crashed") is False:
        left = "stopped"
    started = first if first["event"] == "start" else {}
    return Told(
        worker=worker,
        host=_text(started, "host") or host_of(worker),
        rank=_number(started, "rank"),
        pid=_number(started, "pid"),
        element=_text(started, "element"),
        device=next((_text(event, "device") for event in events if event["event"] == "loaded"), None),
        started_s=first["at_s"] + offset_s,
        does=does,
        since_s=since_s + offset_s,
        left=left,
        error=_text(last, "error") if left in ("crashed", "stopped") else None,
        shard=shard,
        rows=rows,
        units=_recent(list(_units(events, offset_s))),
        written_s=ends.written_s,
    )


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    """The events of a piece of a log, each with its time as at_s; lines that are torn are left out."""
    for line in data.splitlines():
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event["event"], str):
                yield event | {"at_s": seconds_of(event["at"])}


def _before_the_first(events: list[dict[str, Any]]) -> tuple[str | None, float]:
    names = [event["event"] for event in events]
    known = [BEFORE_THE_FIRST_IMAGE[name] for name in names if name in BEFORE_THE_FIRST_IMAGE]
    if not known or names[-1] in LAST or {"shard", "made"} & set(names):
        return None, events[-1]["at_s"]  # it has left, or it is between two shards
    does = known[-1]
    since = next(event for event in events if BEFORE_THE_FIRST_IMAGE.get(event["event"]) == does)
    return does, since["at_s"]


def _shard_of(events: list[dict[str, Any]]) -> tuple[int | None, int]:
    """The shard that was taken last, and how many of its rows were made since, as far as the log was read."""
    shard, rows = None, 0
    for event in events:
        if event["event"] == "shard":
            shard, rows = _number(event, "shard"), _number(event, "rows_resumed") or 0
        elif event["event"] == "made":
            rows += _number(event, "images") or 0
            shard = _number(event, "shard") if shard is None else shard
    return shard, rows


def _recent(units: list[Unit]) -> tuple[Unit, ...]:
    return tuple(unit for unit in units if unit.end_s >= units[-1].end_s - _RECENT_S)


def _units(events: list[dict[str, Any]], offset_s: float) -> Iterator[Unit]:
    begun_s: float | None = None
    for event in events:
        if event["event"] == "made" and begun_s is not None:
            shard, batch, images = (_number(event, name) for name in ("shard", "batch", "images"))
            if shard is not None and batch is not None and images:
                yield Unit(shard, batch, images, begun_s + offset_s, event["at_s"] + offset_s)
        if event["event"] in _BETWEEN_UNITS:
            begun_s = event["at_s"]


def _number(event: dict[str, Any], name: str) -> int | None:
    value = event.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(event: dict[str, Any], name: str) -> str | None:
    value = event.get(name)
    return value if isinstance(value, str) else None
