"""Copies committed shards elsewhere in the background, in the process that started the workers.

Any number of machines share the work by leases: one copy of a shard at a time, two at once a machine. A data set on the
hub has one committer for the run, since its commits would get into each other's way. A store that does not answer is
tried again with longer and longer pauses. To copy a shard twice does no harm.
"""

import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from batchgen.errors import BatchgenError, BrokenRunError, StoreError, in_one_line
from batchgen.files import sha256_file
from batchgen.machine.process import worker_name
from batchgen.plan.store import Plan
from batchgen.shards.attempt import advice, is_done
from batchgen.shards.closing import closing, is_a_persons, to_close
from batchgen.shards.copies import (
    CopyRecord,
    ask_store,
    copied,
    files_of,
    keep_record,
    lease_path,
    new_record,
    record_of,
    record_path,
    to_copy,
)
from batchgen.shards.leases import Lease, Watch
from batchgen.shards.progress import stated_of
from batchgen.stores.bucket import Bucket, Checked, Digests
from batchgen.stores.hub import Hub
from batchgen.stores.outage import Outage
from batchgen.units import count

_AT_ONCE = 2  # copies to a bucket, of all processes of this machine
_SHARDS_A_COMMIT, _COMMIT_EVERY_S = 50, 300.0
_LOOK_EVERY_S, _LOOK_AT_END_S, _BEAT_EVERY_S = 5.0, 2.0, 1.0
_SHARE_OF_LOOKING = 50  # looking at a large run may take this part of the time


@dataclass
class Copy:
    """What is being copied: a shard of this attempt, or a closing file, and all files of it with their names there."""

    item: int | str
    attempt: str
    main: Path  # the file that the record is about
    digests: Digests
    files: list[tuple[Path, str]] = field(default_factory=list)


class Copier:
    """Copies what is committed of a plan until it is closed. `harmed`: what it cannot copy, with what is wrong."""

    def __init__(self, plan: Plan, store: Bucket | Hub, say: Callable[[str], None]) -> None:
        self._plan, self._run, self._store, self._say = plan, plan.run, store, say
        self._stays = plan.config.output.keep_local
        self._name = f"{worker_name(0)}-copies"
        self._watch = Watch(plan.config.launch.lease_timeout_s)
        self._lock = threading.Lock()
        self._held: dict[int | str, Lease] = {}
        self._slots: list[Lease] = []
        self._looked_s, self._look_s, self._seen = 0.0, _LOOK_EVERY_S, list[int | str]()
        self._closing = threading.Event()
        self.outage = Outage()
        self.harmed: dict[int | str, str] = {}
        self._persons = set[str]()  # closing files that are there by a person, and stay
        self.is_ending = False  # all is made that will be: closing files are copied, and the hub gets its last commit

    def start(self) -> None:
        """Begin."""
        buckets = [partial(self._serve_bucket, number) for number in range(_AT_ONCE)]
        works = [self._serve_hub] if isinstance(self._store, Hub) else buckets
        for number, work in enumerate([*works, self._beat]):
            threading.Thread(target=work, daemon=True, name=f"copies-{number}").start()

    def close(self) -> None:
        """End, without waiting for copies that are under way: whoever comes next makes them again."""
        self._closing.set()
        with self._lock:
            for lease in [*self._held.values(), *self._slots]:
                lease.release()
            self._held.clear()

    @property
    def is_busy(self) -> bool:
        """Whether something is being copied here."""
        return bool(self._held)

    def left(self) -> set[int | str]:
        """What lacks a copy, and the shards that are still here and shall leave. Raises OSError."""
        left: set[int | str] = set(to_copy(self._plan))
        if not self._stays:
            left |= copied(self._run) & self._run.tars() & set(range(self._plan.shard_count))
        return left | (to_close(self._plan, self._store.address) - self._persons if self.is_ending else set())

    def _wanted(self) -> list[int | str]:
        """What is left, as of the last look: one is taken every few seconds, in an order of this process's own."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= self._look_s:
            self._seen = list(self.left() - self.harmed.keys())
            random.shuffle(self._seen)
            self._looked_s = time.monotonic()
            least_s = _LOOK_AT_END_S if self.is_ending else _LOOK_EVERY_S
            self._look_s = max(least_s, _SHARE_OF_LOOKING * (self._looked_s - now_s))
        return self._seen

    def _beat(self) -> None:
        while not self._closing.wait(_BEAT_EVERY_S):
            for lease in [*self._held.values(), *self._slots]:
                lease.beat()

    def _take(self) -> int | str | None:
        """What to copy next, with its lease held; None where others hold the rest, or nothing is left."""
        with self._lock, suppress(OSError):
            wanted = self._wanted()
            while wanted and not self._closing.is_set():
                item = wanted.pop()
                if item in self._held:
                    continue
                lease = Lease.take_named(lease_path(self._run, item), self._name, self._watch)
                if lease is not None:
                    self._held[item] = lease
                    return item
        return None

    def _release(self, name: int | str) -> None:
        with self._lock:
            if (lease := self._held.pop(name, None)) is not None:
                lease.release()

    def _serve_bucket(self, number: int) -> None:
        slot = lease_path(self._run, f"{number}-at-{socket.gethostname()}")  # of this machine, whoever works on it
        while not self._closing.is_set():
            with self._lock, suppress(OSError):
                if (lease := Lease.take_named(slot, self._name, self._watch)) is not None:
                    self._slots.append(lease)
                    break
            self._closing.wait(_LOOK_EVERY_S)
        while not self._closing.is_set():
            item = self._take()
            if item is not None:
                self._guard(partial(self._copy, item, self._put))
                self._release(item)
            self._closing.wait(self.outage.pause_s() or (_BEAT_EVERY_S if item is None else 0.0))

    def _guard(self, act: Callable[[], None]) -> None:
        """Do `act`. Where the store or the disk fails, that is said once, and it is tried again after a pause."""
        try:
            act()
        except (BatchgenError, OSError) as error:
            if self.outage.failed() and not self._closing.is_set():
                self._say(f"copies have to wait: {in_one_line(error)}; the run goes on, and they are tried again")
            return
        if self.outage.is_over():
            self._say(f"copies to {self._store.address} go on")

    def _copy(self, item: int | str, put: Callable[[Copy], None]) -> None:
        """Copy what lacks a copy, and let the tar go where it shall. What cannot be copied is told once."""
        try:
            if isinstance(item, str):
                self._close(item, put)
            elif not self._is_there(item):
                put(self._copy_of(item))
            elif not self._stays:
                self._run.tar(item).unlink(missing_ok=True)
        except BrokenRunError as error:
            self.harmed[item] = str(error)
            self._say(f"not copied: {error}")

    def _close(self, name: str, put: Callable[[Copy], None]) -> None:
        """Copy a file that closes the data set, unless one of a person's is there."""
        if is_a_persons(self._run, self._store, name):
            self._persons.add(name)
            self._say(f"{self._store.url(name)} is not of this run and stays: take over what you need of {name} here")
            return
        path = closing(self._run)[name]
        put(Copy(name, "", path, Digests.of(path), [(path, name)]))

    def _is_there(self, shard: int) -> bool:
        """Whether the copy was made, and, where the tar shall leave, is still good and stated to be all there is."""
        record = record_of(self._run, shard)
        if record is None or not is_done(self._run, shard):
            return False
        stated = stated_of(self._run, shard)
        if (record["attempt"], record["to"]) != (stated.attempt, self._store.address):
            return False
        if self._stays:
            return True
        asked = ask_store(self._run, record, deep=record["store_checksum"] is None)
        if asked.unreached is not None:
            raise StoreError(asked.unreached)
        if asked.problem is not None:
            record_path(self._run, shard).unlink(missing_ok=True)
            return False
        if record["keeps_local"]:
            keep_record(self._run, {**record, "keeps_local": False})
        return True

    def _copy_of(self, shard: int) -> Copy:
        """What to copy, read once. Raises BrokenRunError where it is not what was committed."""
        run = self._run
        if not is_done(run, shard):  # this publishes the tar of a worker that was cut off
            raise BrokenRunError(f"shard {shard:06d} is no longer committed")
        stated, digests = stated_of(run, shard), Digests.of(run.tar(shard))
        if stated.made_by[0] != self._plan.run_id or digests.sha256 != stated.sha256:
            raise BrokenRunError(f"{run.tar(shard)} is not the file that was committed: {advice(run)}")
        files = [(path, path.relative_to(run.root).as_posix()) for path in files_of(run, shard)]
        return Copy(shard, stated.attempt, run.tar(shard), digests, files)

    def _put(self, copy: Copy) -> None:
        assert isinstance(self._store, Bucket)
        found = {}
        for path, name in copy.files:
            digests = copy.digests if path == copy.main else Digests.of(path)
            found[path] = self._store.put(path, name, digests)
        self._keep(copy, found[copy.main])

    def _keep(self, copy: Copy, checked: Checked) -> None:
        """Record a checked copy, and only then let the tar go."""
        name = copy.main.relative_to(self._run.root).as_posix()
        record: CopyRecord = new_record(
            run_id=self._plan.run_id,
            shard=copy.item if isinstance(copy.item, int) else None,
            attempt=copy.attempt,
            bytes=copy.digests.bytes,
            sha256=copy.digests.sha256,
            to=self._store.address,
            url=self._store.url(name),
            checked=checked.how,
            store_checksum=checked.checksum,
            keeps_local=self._stays or isinstance(copy.item, str),
        )
        keep_record(self._run, record, copy.main.name)
        if not record["keeps_local"]:
            copy.main.unlink(missing_ok=True)

    def _serve_hub(self) -> None:
        while not self._closing.is_set():
            pause_s = self.outage.pause_s() or _BEAT_EVERY_S
            if self._closing.wait(pause_s) or not self._guard_wanted():
                continue
            lease = Lease.take_named(lease_path(self._run, "hub"), self._name, self._watch)
            if lease is None:
                self._closing.wait(_LOOK_EVERY_S)
                continue
            with self._lock:
                self._held["hub"] = lease
            self._guard(self._commit)
            self._release("hub")

    def _guard_wanted(self) -> bool:
        with suppress(OSError):
            return bool(self._wanted())
        return False

    def _commit(self) -> None:
        """Upload what is left, and what comes, and make it one commit when it is enough, old enough or the last."""
        assert isinstance(self._store, Hub)
        batch: list[Copy] = []
        added: list[object] = []
        began_s = time.monotonic()
        while not self._closing.is_set():
            known = {copy.item for copy in batch}
            wanted = [item for item in self._wanted() if item not in known and item not in self.harmed]
            for item in wanted[: _SHARDS_A_COMMIT - len(batch)]:
                before = len(batch)
                self._copy(item, batch.append)
                for copy in batch[before:]:
                    added += self._store.upload(copy.files)
                if self._closing.is_set():
                    return
            is_old = time.monotonic() - began_s > _COMMIT_EVERY_S
            if len(batch) >= _SHARDS_A_COMMIT or is_old or (self.is_ending and not self._unseen(batch)):
                break
            self._closing.wait(_BEAT_EVERY_S)
        if batch and not self._closing.is_set():
            what = count(sum(isinstance(copy.item, int) for copy in batch), "shard")
            self._store.commit(added, f"{what} of {self._plan.config.job.name}", self._closing.wait)
            self._record(batch)

    def _unseen(self, batch: Sequence[Copy]) -> set[int | str]:
        return self.left() - self.harmed.keys() - {copy.item for copy in batch}

    def _record(self, batch: Sequence[Copy]) -> None:
        assert isinstance(self._store, Hub)
        files = [(path, name, sha256_file(path)) for copy in batch for path, name in copy.files]
        checked = dict(zip((path for path, _, _ in files), self._store.checked(files), strict=True))
        for copy in batch:
            self._keep(copy, checked[copy.main])
