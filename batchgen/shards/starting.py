"""What workers do before their first image: load the model, then measure memory or wait for who measures it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from batchgen.shards.crew import Crew
from batchgen.units import duration


@dataclass(frozen=True, slots=True)
class Starting:
    """A worker that has not begun with an image: what it does, and since when in s since the epoch by this clock."""

    worker: str
    does: str
    since_s: float


def starting(crew: Crew) -> Iterator[Starting]:
    """The workers that are alive and have not begun with an image yet."""
    for member in crew.members:
        if member.state == "loading" and member.since_s is not None:
            yield Starting(member.worker, member.does, time.time() - (crew.now_s - member.since_s))


def starting_line(workers: list[Starting], now_s: float) -> str | None:
    """What these workers do, and for how long, in a few words; None for none."""
    parts = []
    for does in dict.fromkeys(worker.does for worker in workers):
        same = [worker for worker in workers if worker.does == does]
        longest_s = max(0.0, now_s - min(worker.since_s for worker in same))
        who = "1 worker is" if len(same) == 1 else f"{len(same)} workers are"
        parts.append(f"{who} {does}, for {duration(longest_s)}")
    return "; ".join(parts) or None
