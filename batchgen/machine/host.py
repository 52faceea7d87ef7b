"""How much of this host's memory a process may use: what is available, within the limits of its control groups."""

import os
from contextlib import suppress
from pathlib import Path

import psutil

# How many workers share this machine; their launcher sets it.
WORKERS_HERE = "BATCHGEN_WORKERS_HERE"
_MEMBERSHIP, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_LEFT_BYTES, _LEFT_SHARE = 2 << 30, 0.05
# Files of a control group: its limit, what it uses, and how much of that only caches files that were read.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def pinnable_bytes() -> int:
    """How much of the host's memory this worker may page-lock.

    That is what is available now, less 2 GiB or 5%, divided by the number of workers on this machine.
    """
    memory = psutil.virtual_memory()
    left_bytes = max(_LEFT_BYTES, int(_LEFT_SHARE * memory.total))
    rooms = [memory.available, *_rooms(_MEMBERSHIP, _MOUNT)]
    return max(0, min(rooms) - left_bytes) // workers_here()


def workers_here() -> int:
    """How many workers share this machine, as this one was told; 1 if it was not told."""
    told = os.environ.get(WORKERS_HERE, "")
    return max(1, int(told)) if told.isdecimal() else 1


def _rooms(membership: Path, mount: Path) -> list[int]:
    """Bytes left in each limited control group of this process: its own and its parents, of both versions.

    A container sees its own group as the mount's root, whatever path /proc gives.
    """
    rooms = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, names = (mount / "memory", _V1) if controllers else (mount, _V2)
            own = root / path.lstrip("/")
            around = [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
            rooms += [room for folder in around if (room := _room(folder, *names)) is not None]
    return rooms


def _room(folder: Path, limit: str, usage: str, files: str) -> int | None:
    try:
        limit_bytes = int((folder / limit).read_text())  # "max" means no limit
        used_bytes = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, limit_bytes - used_bytes + int(stat.get(files, 0)))
    except (OSError, ValueError):
        return None
