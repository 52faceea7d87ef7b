"""What the logs of workers tell: when each was there, what it waited for, and what happened to it.

Of what happened often there is one entry, with the first time and a count: a night of a thousand workers says the same
thing a thousand times.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchgen.events import read_events, seconds_of
from batchgen.files import unseal
from batchgen.paths import RunDir
from batchgen.shards.worker_log import BEFORE_THE_FIRST_IMAGE, LAST

MOST = 200  # entries of a kind
_NUMBER = re.compile(r"\d[\d.,]*")
# What is worth telling, and the fact of the event that says more of it.
_EVENTS = {
    "error": ("worker left", "error"),
    "given_up": ("images given up", "reason"),
    "load_failed": ("loading failed", "error"),
    "probe_failed": ("measuring failed", "said"),
    "not_staged": ("model not copied", "why"),
    "commit_lost": ("made twice", ""),
    "renew": ("worker renewed", ""),
    "drain": ("asked to end", ""),
}
_SAYS = {
    "commit_lost": "another worker committed the shard first",
    "renew": "its memory kept growing, so a new process took over",
    "drain": "it ended after the images under way",
}


@dataclass(frozen=True, slots=True)
class Stay:
    """From when until when a worker was there, in s since the epoch, and whether it has said that it left."""

    began_s: float
    ended_s: float
    left: bool


@dataclass(slots=True)
class Told:
    """What the logs tell. `stays`: by worker. `waits`: seconds by what was waited for before the first image."""

    stays: dict[str, Stay] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    policies: dict[Any, dict[str, Any]] = field(default_factory=dict)
    events: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def note(self, at: str, worker: str, what: str, text: str) -> None:
        """Note that something happened; what differs only in its numbers counts as the same."""
        key = (what, _NUMBER.sub("#", text))
        entry = {"at": at, "worker": worker, "what": what, "text": text, "count": 0}
        _count(self.events, key, entry)

    def note_policy(self, at: str, worker: str, size: str, policy: Mapping[str, Any], why: str) -> None:
        """Note by which policy images of a size are made."""
        key = (size, json.dumps(policy, sort_keys=True), _NUMBER.sub("#", why))
        entry = {"at": at, "worker": worker, "size": size, "policy": dict(policy), "why": why, "count": 0}
        _count(self.policies, key, entry)


def _count(entries: dict[Any, dict[str, Any]], key: Any, entry: dict[str, Any]) -> None:
    known = entries.setdefault(key, entry)
    if entry["at"] < known["at"]:
        known |= {name: value for name, value in entry.items() if name != "count"}
    known["count"] += 1


def in_order(entries: Mapping[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries in order of time; where there are very many, those that happened most."""
    most = sorted(entries.values(), key=lambda entry: -entry["count"])[:MOST]
    return sorted(most, key=lambda entry: str(entry["at"]))


def read_told(run: RunDir) -> Told:
    """What the logs of all workers and the recorded crashes tell. What cannot be read is left out."""
    told = Told()
    for path in run.event_logs():
        try:
            _read(told, path.stem, read_events(path))
        except OSError:
            continue
    for path in run.failure_files():
        try:
            facts = unseal(path.read_bytes())
        except OSError:
            continue
        if facts is not None:
            told.note(str(facts.get("at")), str(facts.get("worker")), "worker crashed", str(facts.get("reason")))
    return told


def _read(told: Told, worker: str, events: Iterable[dict[str, Any]]) -> None:
    began_s: float | None = None
    before, before_s = "", 0.0
    why: dict[str, str] = {}  # by size
    has_begun = False
    for event in events:
        try:
            name, at_s = str(event["event"]), seconds_of(event["at"])
            began_s = at_s if began_s is None else began_s
            if not has_begun and before in BEFORE_THE_FIRST_IMAGE:
                does = BEFORE_THE_FIRST_IMAGE[before]
                told.waits[does] = told.waits.get(does, 0.0) + max(0.0, at_s - before_s)
            has_begun = has_begun or name == "shard"
            before, before_s = name, at_s
            if name not in ("made", "shard", "commit", "growth"):
                _tell(told, worker, name, event, why)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # a line that batchgen did not write
    if began_s is not None:
        told.stays[worker] = Stay(began_s, max(began_s, before_s), before in LAST)


def _tell(told: Told, worker: str, name: str, event: dict[str, Any], why: dict[str, str]) -> None:
    at, size = str(event["at"]), f"{event.get('width')}x{event.get('height')}"
    if name == "chosen":
        why[size] = str(event.get("reason") or "")
    elif name == "policy":
        told.note_policy(at, worker, size, event["policy"], why.get(size, ""))
    elif name == "policy_replaced":
        told.note_policy(at, worker, "", event["used"], f"the device cannot do what was chosen: {event['why']}")
    elif name == "out_of_memory":
        stage, said, after = str(event["stage"]), str(event["said"]), event["next"]
        told.note(at, worker, "out of memory", f"{size} px, {stage}: {said}")
        if after and after != event["policy"]:
            told.note_policy(at, worker, size, after, f"stepped down: out of memory in {stage}")
    elif name in _EVENTS:
        what, fact = _EVENTS[name]
        told.note(at, worker, what, str(event.get(fact) or "") if fact else _SAYS[name])
