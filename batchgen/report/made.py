"""What the memory logs tell: how fast each worker was, what memory it took, and where the time went.

Each unit of a memory log is a point in time of its worker. A run has up to millions of them, so they are kept as
numbers, and what is shown are groups of units that follow each other, with the peak of each group.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchgen.events import seconds_of
from batchgen.shards.memory_log import BatchRecord

POINTS = 4000  # of all workers together
SERIES = 24
_STAGES = ("encode", "denoise", "decode", "write")
_ON_DEVICE = ("encode", "denoise", "decode")
_PEAK, _PREDICTED, _USED = 3, 4, 5
_FIELDS = 6  # of a unit: start, end, images, and the three of memory
_UNKNOWN = -1.0


@dataclass(slots=True)
class Made:
    """What a worker made. Times in s since the epoch, by its own clock; `between_s`: within units, beside the stages.

    `on_host`: whether it has no device memory, so that its peaks are those of the process on the host.
    """

    worker: str
    host: str
    device: str
    images: int = 0
    busy_s: float = 0.0
    between_s: float = 0.0
    on_host: bool = True
    units: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def began_s(self) -> float:
        """When its first unit began."""
        return min(self.units[::_FIELDS])

    @property
    def ended_s(self) -> float:
        """When its last unit ended."""
        return max(self.units[1::_FIELDS])

    def in_order(self) -> list[tuple[float, ...]]:
        """Its units by time: start, end, images, peak, predicted and used bytes, -1 for what is not known."""
        values = self.units
        return sorted(tuple(values[at : at + _FIELDS]) for at in range(0, len(values), _FIELDS))


class Tally:
    """Adds up the units of a run. Records that lack a field are left out, for they are not those of batchgen."""

    def __init__(self) -> None:
        self.workers: dict[str, Made] = {}
        self.stages: Counter[str] = Counter()
        self.ooms = 0
        self.retries = 0

    def add(self, records: Iterable[BatchRecord]) -> None:
        """Add the units of a memory log."""
        for record in records:
            try:
                self._add(record)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue

    def _add(self, record: BatchRecord) -> None:
        start_s, stages = seconds_of(record["started_at"]), record["stage_seconds"]
        peak = record["peak_allocated_bytes"]
        figures = (
            start_s,
            start_s + record["seconds"],
            record["images"],
            record["host_rss_bytes"] if peak is None else peak,
            _or_unknown(record["predicted_peak_bytes"]),
            _or_unknown(record.get("device_used_bytes")),
        )
        name = record["worker"]
        made = self.workers.setdefault(name, Made(name, record["host"], record["device"]))
        made.units.extend(figures)
        made.images += record["images"]
        made.busy_s += record["seconds"]
        made.between_s += max(0.0, record["seconds"] - sum(stages.get(one, 0.0) for one in _ON_DEVICE))
        made.on_host = peak is None
        self.stages.update({one: stages.get(one, 0.0) for one in _STAGES})
        self.ooms += record["ooms"]
        self.retries += record["retries"]


def _or_unknown(value: float | None) -> float:
    return _UNKNOWN if value is None else value


def series(workers: Sequence[Made], began_s: float) -> list[dict[str, Any]]:
    """Images/s and memory over time of the workers that made most, in s since `began_s`, thinned to `POINTS`."""
    if not workers:
        return []
    most = sorted(workers, key=lambda made: -made.images)[:SERIES]
    return [_series(made, began_s, POINTS // len(most)) for made in sorted(most, key=lambda made: made.worker)]


def _series(made: Made, began_s: float, points: int) -> dict[str, Any]:
    units = made.in_order()
    a_group = -(-len(units) // points)
    groups = [units[at : at + a_group] for at in range(0, len(units), a_group)]
    found: dict[str, Any] = {"worker": made.worker, "memory": "host" if made.on_host else "device"}
    found["t_s"] = [round(group[-1][1] - began_s, 2) for group in groups]
    found["images_per_s"] = [
        round(sum(unit[2] for unit in group) / max(1e-3, group[-1][1] - group[0][0]), 4) for group in groups
    ]
    for name, place in (("peak_bytes", _PEAK), ("predicted_bytes", _PREDICTED), ("device_used_bytes", _USED)):
        peaks = (max(unit[place] for unit in group) for group in groups)
        found[name] = [None if peak == _UNKNOWN else int(peak) for peak in peaks]
    return found


def pauses_s(made: Made) -> float:
    """For how many seconds a worker that had begun was between two units."""
    units = made.in_order()
    return sum(max(0.0, after[0] - before[1]) for before, after in zip(units, units[1:], strict=False))
