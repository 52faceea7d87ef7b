"""Whether an element of a job array still has something to do, or may give its GPUs back."""

from collections.abc import Collection
from contextlib import suppress

from batchgen.plan.store import Plan
from batchgen.shards.leases import read_lease


class Spare:
    """Looks whether others make all that is left.

    That is so when each open shard has a lease of another worker, and each of these leases has been renewed since the
    first look at which that was so: a worker that died long ago is replaced before anybody leaves.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seen: dict[int, bytes] = {}

    def is_spare(self, own: Collection[str]) -> bool:
        """Whether others make all that is left. `own`: the names of the workers of this element."""
        run = self._plan.run
        leases = {}
        for shard in set(range(self._plan.shard_count)) - run.committed():
            with suppress(OSError):
                leases[shard] = run.lease(shard).read_bytes()
            if shard not in leases or read_lease(leases[shard]).worker in own:
                self._seen = {}
                return False
        self._seen = {shard: self._seen.get(shard, content) for shard, content in leases.items()}
        return bool(leases) and all(self._seen[shard] != content for shard, content in leases.items())
