"""The workers of a run: who there is, what each does, and when it last gave a sign of life.

What a worker does stands in its log and in its lease. All that has a time goes by the file server's clock, which
stamped both. Clocks of two machines are never compared: where the files are on a server, "now" is when the newest of
them was written, or this machine's time less ten minutes if that is later.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from batchgen.errors import UserError
from batchgen.files import unseal
from batchgen.machine import process
from batchgen.machine.mounts import is_local, kind_of
from batchgen.paths import RunDir
from batchgen.shards.ends import overlapped, read_ends
from batchgen.shards.eta import Made, rate
from batchgen.shards.leases import Held, Watch, read_lease
from batchgen.shards.worker_log import Told, Unit, read_log
from batchgen.units import duration

# The states of a worker, the one that asks for attention most first.
STATES = ("crashed", "stopped", "gone", "silent", "loading", "waiting", "working", "drained", "ended")
AT_WORK = ("loading", "waiting", "working")
_MOST_LOGS = 2000
_CLOCKS_DIFFER_S = 600.0
_SILENT_WITHOUT_LEASE_S = 3600.0
# The logs of workers that have left do not change any more, so a process reads each of them once.
_LEFT: dict[Path, Told] = {}


@dataclass(frozen=True, slots=True)
class Member:
    """A worker. `does`: its state in words. `is_replaced`: whether another one was started in its place.

    `seen_s`: how many seconds ago it renewed its lease, None for one without a lease. `since_s`: since when it loads,
    in s since the epoch.
    """

    worker: str
    host: str
    state: str
    does: str
    device: str | None = None
    element: str | None = None
    shard: int | None = None
    images_per_s: float | None = None
    seen_s: float | None = None
    since_s: float | None = None
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a run, those that ask for attention first, and what their files say now.

    `at_work`: the names of those that hold a live lease. `rows`: of shards under way, how many rows are made, and at
    least denoised. `unread`: how many logs were not read, because there are very many. `now_s`: the file server's time.
    """

    members: tuple[Member, ...]
    at_work: frozenset[str]
    rows: dict[int, int]
    told: tuple[Told, ...]
    unread: int
    now_s: float


@dataclass(frozen=True, slots=True)
class _Lease:
    shard: int
    held: Held
    written_s: float
    is_live: bool


def read_crew(run: RunDir, watch: Watch) -> Crew:
    """The workers of a run. Raises UserError for a lease that is not a plain file, and OSError."""
    leases = _read_leases(run, watch)
    told, unread = _read_logs(run, {lease.held.worker for lease in leases})
    newest_s = max((*(one.written_s for one in leases), *(one.written_s for one in told)), default=0.0)
    now_s = time.time() if is_local(kind_of(run.root)) else max(newest_s, time.time() - _CLOCKS_DIFFER_S)
    leases = [replace(lease, is_live=lease.is_live and _is_fresh(lease, watch, now_s)) for lease in leases]
    by_worker = {lease.held.worker: lease for lease in sorted(leases, key=lambda lease: lease.is_live)}
    idle = [one for one in told if one.left is None and one.worker not in by_worker]
    alive = _marked(run) if idle else frozenset()
    members = [_member(one, by_worker.get(one.worker), alive, now_s) for one in told]
    if any(one.state == "gone" for one in members):
        crashes = _crashes(run)
        members = [_crashed(one, crashes[one.worker]) if one.worker in crashes else one for one in members]
    members += [
        _without_log(lease, now_s) for name, lease in by_worker.items() if name not in {one.worker for one in told}
    ]
    rows = {lease.shard: lease.held.rows for lease in leases if lease.is_live}
    for one in told:
        if one.shard in rows and one.worker in by_worker and by_worker[one.worker].shard == one.shard:
            rows[one.shard] = max(rows[one.shard], one.rows)
    replaced = _replaced(told)
    members = [replace(one, is_replaced=True) if one.worker in replaced else one for one in members]
    members.sort(key=lambda one: (one.is_replaced, STATES.index(one.state), -(one.seen_s or 0.0), one.worker))
    at_work = frozenset(lease.held.worker for lease in leases if lease.is_live)
    return Crew(tuple(members), at_work, rows, tuple(told), unread, now_s)


def _read_leases(run: RunDir, watch: Watch) -> list[_Lease]:
    def read(path: Path) -> _Lease | None:
        try:
            ends = read_ends(path)
        except ValueError as error:
            raise UserError(f"{error}, so it cannot be a lease: remove it") from None
        if ends is None:
            return None
        return _Lease(int(path.name), read_lease(ends.head), ends.written_s, watch.judge(path, ends.head) is not None)

    return [lease for lease in overlapped(read, run.shard_leases()) if lease is not None]


def _is_fresh(lease: _Lease, watch: Watch, now_s: float) -> bool:
    return now_s - lease.written_s <= watch.patience_s(lease.held)


def _read_logs(run: RunDir, wanted: Collection[str]) -> tuple[list[Told], int]:
    """What the logs tell, those of `wanted` workers first where there are very many; and how many were not read."""
    paths = sorted(run.event_logs(), key=lambda path: path.stem not in wanted)

    def read(path: Path) -> Told | None:
        if path in _LEFT:
            return _LEFT[path]
        told = None
        with suppress(ValueError):
            ends = read_ends(path)
            told = None if ends is None else read_log(path.stem, ends)
        if told is not None and told.left is not None:
            _LEFT[path] = told
        return told

    told = overlapped(read, paths[:_MOST_LOGS])
    return [one for one in told if one is not None], max(0, len(paths) - _MOST_LOGS)


def _marked(run: RunDir) -> frozenset[tuple[str, int]]:
    """(host, pid) of each process that states that it works by the plan and has not certainly ended."""

    def read(path: Path) -> tuple[str, int] | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            ends = read_ends(path)
            who = json.loads(ends.head if ends else b"")["process"]
            if not process.is_gone(who):
                return str(who["host"]), int(who["pid"])
        return None

    return frozenset(who for who in overlapped(read, run.marks()) if who is not None)


def _member(told: Told, lease: _Lease | None, alive: frozenset[tuple[str, int]], now_s: float) -> Member:
    state, does = _state_of(told, lease, alive, now_s)
    return Member(
        worker=told.worker,
        host=told.host,
        state=state,
        does=does,
        device=told.device,
        element=told.element,
        shard=lease.shard if lease and state in ("working", "silent") else None,
        images_per_s=_speed(told, now_s) if state == "working" else None,
        seen_s=max(0.0, now_s - lease.written_s) if lease else None,
        since_s=told.since_s if state == "loading" else None,
    )


def _state_of(told: Told, lease: _Lease | None, alive: frozenset[tuple[str, int]], now_s: float) -> tuple[str, str]:
    if told.left is not None:
        return told.left, f"{told.left}: {_first_line(told.error)}" if told.error else told.left
    if lease is not None and lease.is_live:
        return "working", f"working on shard {lease.shard}"
    if lease is not None:
        if process.is_gone(lease.held.process):
            return "gone", f"gone without a word, on shard {lease.shard}"
        return "silent", f"silent since {duration(max(0.0, now_s - lease.written_s))}, on shard {lease.shard}"
    if (told.host, told.pid) not in alive:
        return "gone", "gone without a word"
    silent_s = now_s - told.written_s
    if silent_s > _SILENT_WITHOUT_LEASE_S:
        return "silent", f"silent since {duration(silent_s)}"
    return ("waiting", "waiting") if told.does is None else ("loading", told.does)


def _crashes(run: RunDir) -> dict[str, str]:
    """The workers whose launcher noted a crash, and what it was."""

    def read(path: Path) -> tuple[str, str] | None:
        with suppress(ValueError, KeyError):
            ends = read_ends(path)
            facts = unseal(ends.head) if ends else None
            return (str(facts["worker"]), str(facts["reason"])) if facts else None
        return None

    return dict(one for one in overlapped(read, run.failure_files()) if one is not None)


def _crashed(member: Member, reason: str) -> Member:
    return (
        replace(member, state="crashed", does=f"crashed: {_first_line(reason)}") if member.state == "gone" else member
    )


def _first_line(error: str) -> str:
    said = error.strip().partition("\n")[0]
    return said if len(said) <= 100 else f"{said[:100]} ..."


def _without_log(lease: _Lease, now_s: float) -> Member:
    """A worker of which there is a lease and no log."""
    host = process.host_of(lease.held.worker)
    does = f"working on shard {lease.shard}" if lease.is_live else f"gone or silent, on shard {lease.shard}"
    state = "working" if lease.is_live else "silent"
    return Member(lease.held.worker, host, state, does, shard=lease.shard, seen_s=max(0.0, now_s - lease.written_s))


def _speed(told: Told, now_s: float) -> float | None:
    return rate(made_of([told], lambda unit: unit.images), {told.worker}, now_s)


def _replaced(told: Iterable[Told]) -> set[str]:
    """The workers in whose place another one was started later: of the same rank and element, or of the same host."""
    newest: dict[tuple[str, int | None], Told] = {}
    older: set[str] = set()
    for one in sorted(told, key=lambda one: one.started_s):
        place = (one.element or one.host, one.rank)
        if place in newest:
            older.add(newest[place].worker)
        newest[place] = one
    return older


def made_of(told: Iterable[Told], amount: Callable[[Unit], float]) -> list[Made]:
    """What workers made of late, by `amount` of each unit."""
    return [Made(one.worker, unit.start_s, unit.end_s, amount(unit)) for one in told for unit in one.units]
