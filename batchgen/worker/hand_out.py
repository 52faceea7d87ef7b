"""Which shard a worker tries next: found in few calls to the file system, however many shards and workers there are.

No shard belongs to a worker. Each begins at a place of its own and goes on from there, round the main part of the plan,
so that two workers seldom want the same shard. One that meets what others have made goes on at a place that it draws.
The small shards at the plan's end come last for every worker and in the order of the plan, so that all end together:
there a worker goes on behind the last shard that anybody holds.

What is settled is not asked about again, and whatever somebody held at any time is passed over until nothing else is
left. So a shard costs a look at its manifest and at its lease; directories are listed at the start, at the plan's end,
and after several shards in a row that others have made. When nothing is free, it looks every quarter of the timeout
whether somebody is gone, by a few leases at a time, or gave a shard back; and at once when nobody is left. Shards that
crashed come after all others.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from batchgen.plan.store import Plan
from batchgen.shards.failures import Crash, read_crashes, suspects_last
from batchgen.shards.leases import Watch
from batchgen.shards.settled import is_settled, settled_by_name

# After so many shards in a row that others made or hold, it is cheaper to list them all.
_MOST_MISSES = 8
_LOOKS_A_TIMEOUT = 4
_LEASES_A_LOOK = 16
_FARTHER = 8
_MOST_LOST = 3


class HandOut:
    """What one worker knows of the shards of a run."""

    def __init__(self, plan: Plan, name: str, place: tuple[int, int], watch: Watch) -> None:
        """`place`: the worker's rank and the number of workers. `watch` watches the leases of others."""
        self._run, self._run_id, self._watch = plan.run, plan.run_id, watch
        self._shards = range(plan.shard_count)
        self._main = main_part([size.images for size in plan.sizes])
        self._rank, self._world = place
        self._draw = random.Random(name)
        self._settled: set[int] = set()
        self._passed: set[int] = set()  # somebody held it once
        self._held: set[int] = set()  # when leases/ was last listed
        self._known: dict[Path, Crash] = {}
        self._crashes: dict[int, list[Crash]] = {}
        self._first: int | None = None
        self._place = 0
        self._has_begun = self._is_main_over = False
        self._lost = 0  # in a row
        self._look_at_s = 0.0
        self._turn = self._draw.randrange(1 << 16)  # workers that wait look at different leases

    def is_over(self) -> bool:
        """Whether no shard is left to make, as far as this worker knows. Raises OSError."""
        if not self._has_begun:
            self._has_begun = True
            self._list_all()
            self.crashes()
            self._first = self._own_place()
            self._place = (self._first or 0) % max(1, self._main)
        return len(self._settled) == len(self._shards)

    def next(self) -> int | None:
        """The shard to try, after `is_over` said that there is one. None while others work on all that is open."""
        misses = 0
        listed = False  # leases/, by this call
        while True:
            shard = self._main_shard()
            if shard is None and not listed:
                listed = True
                self._list_leases()
            if shard is None and (shard := self._last_shard()) is None:
                waits = time.monotonic() < self._look_at_s and not self._held <= self._settled
                if waits or self._passed == self._held:
                    return self._last_resort()
                self._passed, self._is_main_over = set(self._held), False
                continue
            if self._is_open(shard):
                return shard
            misses += 1
            if misses % _MOST_MISSES == 0:
                listed = True
                self._list_all()
                self._place = self._drawn_place()

    def took(self, shard: int) -> None:
        """State that this worker got the lease on a shard."""
        self._lost, self._first = 0, None
        if shard < self._main:
            self._place = (shard + 1) % self._main

    def lost(self, shard: int) -> None:
        """State that another worker was quicker: it is tried elsewhere, and each time in a row farther away."""
        self._lost, self._first = min(_MOST_LOST, self._lost + 1), None
        self._pass(shard)
        self._place = self._drawn_place()

    def settle(self, shard: int) -> None:
        """State that nobody has to make a shard any more."""
        self._settled.add(shard)

    def crashes(self) -> dict[int, list[Crash]]:
        """The crashes that count by now, by shard. Raises OSError."""
        before, self._crashes = self._crashes, read_crashes(self._run, self._run_id, self._known)
        self._is_main_over &= before.keys() == self._crashes.keys()
        return self._crashes

    def open_shards(self) -> list[int]:
        """The shards that are not settled as far as this worker knows, in the order of the plan."""
        return [shard for shard in self._shards if shard not in self._settled]

    def _own_place(self) -> int | None:
        free = [shard for shard in self._shards if self._is_free(shard)]
        main = [shard for shard in free if shard < self._main]
        if len(main) >= self._world:
            return main[self._rank * len(main) // self._world]
        return free[self._rank % len(free)] if free else None

    def _drawn_place(self) -> int:
        free = [shard for shard in range(self._main) if self._is_free(shard)]
        return self._draw.choice(free) if free else self._place

    def _is_free(self, shard: int) -> bool:
        return shard not in self._settled and shard not in self._passed and shard not in self._crashes

    def _main_shard(self) -> int | None:
        if self._first is not None and self._is_free(self._first):
            return self._first
        if self._is_main_over:
            return None
        found = next(filter(self._is_free, chain(range(self._place, self._main), range(self._place))), None)
        self._is_main_over = found is None
        return found

    def _last_shard(self) -> int | None:
        """One of the small shards at the plan's end, by the leases as they were listed by this call."""
        last = self._shards[self._main :]
        front = max((shard for shard in self._held if shard in last), default=self._main - 1)
        # The first free one, or one farther on after a race was lost
        ahead = self._draw.randrange(_FARTHER**self._lost) + 1
        for shards in (self._shards[front + 1 :], last):
            if free := list(islice(filter(self._is_free, shards), ahead)):
                return free[-1]
        return None

    def _is_open(self, shard: int) -> bool:
        """Whether a shard can be taken, as the file system has it now."""
        if is_settled(self._run, shard):
            self._settled.add(shard)
            return False
        if self._run.lease(shard).exists():
            self._pass(shard)
            return False
        return True

    def _pass(self, shard: int) -> None:
        self._held.add(shard)
        self._passed.add(shard)

    def _last_resort(self) -> int | None:
        """A shard that crashed, or whose lease is stale. The leases must have been listed by this call."""
        order = suspects_last(self.crashes(), sorted((self._held | self._crashes.keys()) - self._settled))
        sound = [shard for shard in order if shard not in self._crashes]
        suspects = [shard for shard in order if shard in self._crashes]
        free = (shard for shard in suspects if shard not in self._held and self._is_open(shard))
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return next(free, None)
        found = next(chain(self._of_the_gone(sound), free, self._of_the_gone(suspects)), None)
        if found is None:
            self._look_at_s = now_s + self._watch.timeout_s / _LOOKS_A_TIMEOUT
            self._turn += _LEASES_A_LOOK
        return found

    def _of_the_gone(self, shards: Iterable[int]) -> Iterator[int]:
        held = [shard for shard in shards if shard in self._held]
        begin = self._turn % len(held) if len(held) > _LEASES_A_LOOK else 0
        for shard in (held[begin:] + held[:begin])[:_LEASES_A_LOOK]:
            if not self._watch.is_live(self._run.lease(shard)) and not is_settled(self._run, shard):
                yield shard

    def _list_leases(self) -> None:
        self._held = {int(path.name) for path in self._run.shard_leases()}
        self._passed |= self._held

    def _list_all(self) -> None:
        self._list_leases()  # first: what is committed meanwhile is no longer held
        committed, named = settled_by_name(self._run)
        for shard in sorted(committed - self._settled):
            if shard in self._shards and (shard in named or is_settled(self._run, shard)):
                self._settled.add(shard)


def main_part(images: Sequence[int]) -> int:
    """How many shards there are before the small ones at the plan's end: those with less than half of the most images.

    `images`: of each shard.
    """
    most = max(images, default=0)
    return max((place for place, count in enumerate(images) if 2 * count >= most), default=-1) + 1
