"""How much the images of a plan's shards are, in the measure of `eta.work_of`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from batchgen.errors import BrokenRunError
from batchgen.plan.store import Plan
from batchgen.shards.ends import overlapped
from batchgen.shards.eta import work_of
from batchgen.shards.worker_log import Unit

# How many of the shards are read to know how much is left; the others have as much for each image.
_READ_SHARDS = 48


class Amounts:
    """How much the images of a plan's shards are, by `eta.work_of`. An image counts 1 where the plan cannot be read.

    Of many shards some are read. An image of the others counts as much as one of these does on average.
    """

    def __init__(self, plan: Plan, shards: Collection[int]) -> None:
        """`shards`: those that will be asked for."""
        self._plan = plan
        wanted = sorted(shards)
        read = wanted[:: max(1, -(-len(wanted) // _READ_SHARDS))]
        self._known = dict(zip(read, overlapped(lambda shard: _image_works(plan, shard), read), strict=True))
        images = sum(count for works in self._known.values() for count, _ in works)
        work = sum(count * each for works in self._known.values() for count, each in works)
        self._each = work / images if images else 1.0

    def of(self, unit: Unit) -> float:
        """How much a unit was."""
        works: Sequence[tuple[int, float]] = self._known.get(unit.shard, ())
        return unit.images * (works[unit.batch][1] if unit.batch < len(works) else self._each)

    def left(self, shards: Collection[int], rows: Mapping[int, int]) -> list[float]:
        """What each of the open shards lacks. `rows`: of those under way, how many rows are made."""
        sizes = self._plan.sizes
        return [
            self._lacks(shard, rows.get(shard, 0))
            if shard in self._known
            else self._each * max(0, sizes[shard].images - rows.get(shard, 0))
            for shard in sorted(shards)
        ]

    def _lacks(self, shard: int, rows: int) -> float:
        lacks = 0.0
        for count, each in self._known[shard]:
            lacks += max(0, count - rows) * each
            rows = max(0, rows - count)
        return lacks


def _image_works(plan: Plan, shard: int) -> list[tuple[int, float]]:
    """(images, how much each of them is) of each batch of a shard."""
    return _works_of(_Planned(plan, shard, plan.digest(shard)))


@dataclass(frozen=True, slots=True)
class _Planned:
    """A shard of a plan, equal to another one if it has the same bytes."""

    plan: Plan = field(compare=False)
    index: int
    digest: str


@lru_cache(maxsize=4096)
def _works_of(planned: _Planned) -> list[tuple[int, float]]:
    try:
        batches = planned.plan.shard(planned.index)[0].batches
    except (BrokenRunError, OSError):  # a worker will say so
        size = planned.plan.sizes[planned.index]
        return [(size.images, 1.0)] * size.batches
    return [(len(batch.prompts), work_of(batch) / len(batch.prompts)) for batch in batches]
