"""How much the images of a plan's shards are, in the measure of `eta.work_of`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from batchgen.errors import BrokenRunError
from batchgen.plan.store import Plan
from batchgen.shards.eta import work_of
from batchgen.shards.memory_log import BatchRecord

# How many of the open shards are read to know how much is left.
_READ_SHARDS = 64


class Amounts:
    """How much the images of a plan's shards are, by `eta.work_of`. An image counts 1 where the plan cannot be read."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def of(self, record: BatchRecord) -> float:
        """How much a unit was."""
        each = _image_works(self._plan, record["shard"])
        return float(record["images"]) * each[record["batch"]][1]

    def left(self, shards: Collection[int], rows: Mapping[int, int]) -> list[float]:
        """What each of the open shards lacks. `rows`: of those under way, how many rows are made."""
        wanted = sorted(shards)
        # Of many shards some are read: the others have as much for each image.
        read = {*wanted[:: max(1, len(wanted) // _READ_SHARDS)], *rows}
        known = {shard: self._lacks(shard, rows.get(shard, 0)) for shard in read if shard in shards}
        images = sum(self._plan.sizes[shard].images - rows.get(shard, 0) for shard in known)
        each = sum(known.values()) / images if images else 1.0
        return [known.get(shard, each * self._plan.sizes[shard].images) for shard in wanted]

    def _lacks(self, shard: int, rows: int) -> float:
        lacks = 0.0
        for count, each in _image_works(self._plan, shard):
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
