"""How much of this host's memory a process may use: what is available, within the limits of its control groups."""

import os
import resource
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# How many workers share this machine, and the memory of each; their launcher sets both.
WORKERS_HERE, ROOM_HERE = "BATCHGEN_WORKERS_HERE", "BATCHGEN_HOST_ROOM"
_MEMBERSHIP, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_LEFT_BYTES, _LEFT_SHARE = 2 << 30, 0.05
# Files of a control group of the second and of the first version: its limit, what it uses, and how much of that only
# caches files that were read, which the kernel may drop.
_FILES = {
    False: ("memory.max", "memory.current", ("inactive_file", "active_file")),
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}
# The limits of a process: ulimit -v and ulimit -d.
_OWN_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_DATA)


@dataclass(frozen=True, slots=True)
class Room:
    """The host memory of one of the `workers` on this machine, in bytes, with what it holds already.

    `held_bytes` is all that it may hold, and `pinned_bytes` what of that it may page-lock.
    """

    held_bytes: int
    pinned_bytes: int
    workers: int = 1


def room_for(workers: int, begun: Iterable[int] = ()) -> Room:
    """The room of each of so many workers that are about to start, some of which have `begun` as these processes.

    They share what is available now within the limits of the control groups. Swap counts for what is held and not for
    what is page-locked, of which 2 GiB or 5% are left over. The limits of a process (ulimit) hold for each worker.
    """
    return _room_of_each(workers, sum(map(_anonymous_bytes, begun)))


def own_room(told: Mapping[str, str]) -> Room:
    """The room of this worker, as its launcher said in these variables of the environment.

    One that was not told finds out; what it holds already counts as available.
    """
    workers = workers_here()
    try:
        held_bytes, pinned_bytes = (int(one) for one in told.get(ROOM_HERE, "").split())
    except ValueError:
        return _room_of_each(workers, _anonymous_bytes(os.getpid()))
    return Room(held_bytes, pinned_bytes, workers)


def as_told(room: Room) -> dict[str, str]:
    """The variables by which a launcher tells a worker its room."""
    return {WORKERS_HERE: str(room.workers), ROOM_HERE: f"{room.held_bytes} {room.pinned_bytes}"}


def workers_here() -> int:
    """How many workers share this machine, as this one was told; 1 if it was not told."""
    told = os.environ.get(WORKERS_HERE, "")
    return max(1, int(told)) if told.isdecimal() else 1


def _room_of_each(workers: int, held_bytes: int) -> Room:
    memory = psutil.virtual_memory()
    left_bytes = max(_LEFT_BYTES, int(_LEFT_SHARE * memory.total))
    rooms = [room for folder, is_first in groups() if (room := _room(folder, *_FILES[is_first])) is not None]
    lockable = min([memory.available, *rooms]) + held_bytes
    held = min([memory.available + psutil.swap_memory().free, *rooms]) + held_bytes
    limits = [soft for one in _OWN_LIMITS if (soft := resource.getrlimit(one)[0]) != resource.RLIM_INFINITY]
    return Room(
        min([held // workers, *limits]), min([max(0, lockable - left_bytes) // workers, *limits]), workers
    )  # fmt: skip


def _anonymous_bytes(pid: int) -> int:
    # What a process holds beside pages of files
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


def groups() -> list[tuple[Path, bool]]:
    """The control groups of this process that may limit its memory: its own and its parents, of both versions.

    Each has its folder, and whether it is of the first version. A container sees its own group as the mount's root,
    whatever path /proc gives.
    """
    found = []
    with suppress(OSError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = _MOUNT / "memory" if controllers else _MOUNT
            own = root / path.lstrip("/")
            around = (folder for folder in (own, *own.parents) if folder == root or root in folder.parents)
            found += [(folder, bool(controllers)) for folder in around]
    return found


def _room(folder: Path, limit: str, usage: str, files: tuple[str, ...]) -> int | None:
    try:
        limit_bytes = int((folder / limit).read_text())  # "max" means no limit
        used_bytes = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit_bytes - used_bytes + sum(int(stat.get(one, 0)) for one in files))
    except (OSError, ValueError):
        return None
