"""What a quick look at a run says: which shards are in, what is broken, and which images failed.

A large run has more shards than can be opened while somebody waits. So all shards are judged by their names, and the
newest ones, which are all of a small run, by what their manifests state and by the sizes of their tars. `verify` looks
at everything.
"""

from dataclasses import dataclass

from batchgen.plan.store import Plan
from batchgen.shards.ends import overlapped
from batchgen.shards.index import read_index
from batchgen.shards.progress import ShardStates, failed_samples, finished_by_name, problem_of

LOOKED_AT = 64  # shards, of those that are in and of those that may be broken


@dataclass(frozen=True, slots=True)
class Glance:
    """What a quick look says. `finished`: the shards that have a manifest and a tar, or whose copy was checked.

    `failed`: key and reason of images that failed, and `failed_images`: how many there are in all, None where only some
    shards were looked at. `looked_at`: in how many finished shards.
    """

    states: ShardStates
    finished: frozenset[int]
    failed: dict[str, str]
    failed_images: int | None
    looked_at: int

    @property
    def is_partial(self) -> bool:
        """Whether finished shards were judged by their names alone."""
        return self.looked_at < len(self.finished)


def glance(plan: Plan, before: Glance | None = None) -> Glance:
    """Look at a run. What `before` knows of failed images is not read again. Raises BrokenRunError and OSError."""
    planned = frozenset(range(plan.shard_count))
    committed, finished = planned & plan.run.committed(), finished_by_name(plan)
    newest = sorted(finished)[-LOOKED_AT:]
    lacking = sorted(committed - finished)
    judged = [*lacking[:LOOKED_AT], *newest]
    problems = dict(zip(judged, overlapped(lambda shard: problem_of(plan, shard), judged), strict=True))
    problems |= {shard: f"shard {shard:06d}'s tar is missing" for shard in lacking[LOOKED_AT:]}
    broken = {shard: problem for shard, problem in sorted(problems.items()) if problem is not None}
    states = ShardStates(committed - broken.keys(), broken, planned - committed)
    if broken:
        return Glance(states, finished, {}, None, len(newest))
    if before is not None and before.states == states:
        return before
    return Glance(states, finished, *_failed(plan, states, newest), len(newest))


def _failed(plan: Plan, states: ShardStates, newest: list[int]) -> tuple[dict[str, str], int | None]:
    """The failed images as far as they are known, and how many there are in all, None if that is not known."""
    if states.open and len(newest) < len(states.whole):
        return failed_samples(plan, newest), None
    index = None if states.open else read_index(plan.run)
    if index is None or index["run_id"] != plan.run_id or len(index["shards"]) != plan.shard_count:
        failed = failed_samples(plan, states.whole)
        return failed, len(failed)
    # A retry makes good what failed in an earlier shard.
    retried = {
        one.first_shard + offset for one in plan.segments if one.kind == "retry" for offset in range(len(one.shards))
    }
    told = [shard for shard, entry in enumerate(index["shards"]) if entry.get("failed", 1) or shard in retried]
    failed = failed_samples(plan, told[-LOOKED_AT:])
    exact = len(told) <= LOOKED_AT
    return failed, len(failed) if exact else max(0, plan.images - sum(entry["samples"] for entry in index["shards"]))
