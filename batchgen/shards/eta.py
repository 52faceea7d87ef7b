"""When a run will be done, by what all its workers did of late. Pure.

What counts is work, not images: a batch's pixels times its steps. The rate is that of all workers over one stretch of
time in which all of them worked, because workers that share a device slow each other down: what one did while the
others were still loading their models says nothing about later.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from batchgen.types import Batch

_RECENT_S = 600.0
# Decoding and writing an image takes about as long as this many of its passes.
_DECODE_PASSES = 3


@dataclass(frozen=True, slots=True)
class Made:
    """A finished unit: who made it, from when until when in s, and how much it was."""

    worker: str
    start_s: float
    end_s: float
    amount: float

    def since(self, begin_s: float) -> float:
        """How much of it was made after `begin_s`."""
        took_s = self.end_s - self.start_s
        return self.amount if took_s <= 0 else self.amount * min(1.0, max(0.0, (self.end_s - begin_s) / took_s))


def rate(made: Iterable[Made], at_work: Collection[str], now_s: float) -> float | None:
    """How much all workers that are at work now make in a second; None if none of them has finished a unit.

    A worker that has not finished any is not counted yet: it may share its device with one that has.
    """
    own: dict[str, list[Made]] = {}
    for unit in made:
        if unit.worker in at_work:
            own.setdefault(unit.worker, []).append(unit)
    if not own:
        return None
    together_s = max(min(unit.start_s for unit in units) for units in own.values())
    begin_s = max(together_s, max(unit.end_s for units in own.values() for unit in units) - _RECENT_S)
    found = sum(_own_rate(units, begin_s, now_s) for units in own.values())
    return found if found > 0 else None


def _own_rate(units: Sequence[Made], begin_s: float, now_s: float) -> float:
    """What one worker makes in a second, since `begin_s` as far as it finished anything since."""
    last = max(units, key=lambda unit: unit.end_s)
    begin_s = min(begin_s, last.start_s)
    amount = sum(unit.since(begin_s) for unit in units)
    # A unit under way takes about as long as the last one; if it takes longer, the worker has become slower.
    usual_s = last.end_s - last.start_s
    end_s = max(last.end_s, now_s - 2 * usual_s)
    return amount / max(1e-9, end_s - max(begin_s, min(unit.start_s for unit in units)))


def left_s(left: Sequence[float], rate: float, workers: int) -> float:
    """Seconds until all is made. `left` is what each open shard still lacks.

    A shard is made by one worker: where few are left, the longest one decides.
    """
    if not left:
        return 0.0
    return max(sum(left) / rate, max(left) * max(1, workers) / rate)


def work_of(batch: Batch) -> float:
    """How much a batch is: pixels, times the passes that each image takes."""
    width, height, steps, guided, _ = batch.prompts[0].group
    return float(width * height * (steps * (2 if guided else 1) + _DECODE_PASSES) * len(batch.prompts))
