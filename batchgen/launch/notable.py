"""What the workers of a command met that a person should know while it happens: each kind once, not a thousand times.

It stands in the workers' logs, of which only what was added since the last look is read.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from batchgen.paths import RunDir

_MOST_BYTES = 1 << 20  # of a log, at a look
_TOLD_OTHERWISE = ("tried again in a later shard", "it crashed")


class Notable:
    """Looks at the logs of workers for events that are worth a line."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._read: dict[str, int] = {}
        self._told: set[str] = set()

    def look(self, workers: Sequence[str]) -> list[str]:
        """The lines about what happened since the last look, of kinds that were not told before. Never raises."""
        lines = []
        for worker in workers:
            for event in self._new_events(worker):
                with suppress(KeyError, TypeError, ValueError, AttributeError):  # a log is for people, not for programs
                    found = told(event)
                    if found is not None and found[0] not in self._told:
                        self._told.add(found[0])
                        lines.append(f"{found[1]} (said once; {self._run.worker_log(worker)} has all)")
        return lines

    def _new_events(self, worker: str) -> Iterator[dict[str, Any]]:
        try:
            with self._run.worker_log(worker).open("rb") as file:
                file.seek(self._read.get(worker, 0))
                data = file.read(_MOST_BYTES)
        except OSError:
            return
        whole, end, _ = data.rpartition(b"\n")
        self._read[worker] = self._read.get(worker, 0) + len(whole) + len(end)
        for line in whole.splitlines():
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def told(event: dict[str, Any]) -> tuple[str, str] | None:
    """The kind of an event and a line about it; None for what nobody needs to hear of now."""
    match event["event"]:
        case "out_of_memory":
            where = f"{event['stage']} at {event['width']}x{event['height']} px"
            return f"out of memory, {where}", f"out of memory in {where}: {_next(event)}"
        case "policy_replaced":
            return f"policy, {event['why']}", f"a part of the policy cannot be used here: {event['why']}"
        case "given_up":
            return "given up", f"images of shard {event['shard']} crash and are left out: {event['reason']}"
        case "not_staged":
            return "not staged", f"the model is not copied to launch.scratch: {event['why']}"
        case "not_ok" if not str(event["reason"]).startswith(_TOLD_OTHERWISE):
            return (
                f"not ok, {event['reason']}",
                f"image {event['key']} is left out ({event['status']}): {event['reason']}",
            )
    return None


def _next(event: dict[str, Any]) -> str:
    now, after = event["policy"], event["next"]
    if after is None:
        return "no smaller policy is left"
    changed = [f"{name} {now[name]} -> {after[name]}" for name in now if now[name] != after[name]]
    return f"it goes on with {', '.join(changed)}" if changed else "it is tried once more"
