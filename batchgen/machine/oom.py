"""Whether the kernel ended processes for lack of memory, by its own counters."""

from pathlib import Path

from batchgen.machine.host import groups

_VMSTAT = Path("/proc/vmstat")
# The file of a control group that counts, in its second and its first version
_COUNTERS = {False: "memory.events", True: "memory.oom_control"}
_KILLS = "oom_kill"


def kills() -> int:
    """How many processes the kernel has ended for lack of memory, so that a larger number later tells of another.

    Those of this process's control groups count; where they do not tell, those of the whole machine. 0 where nothing
    tells.
    """
    told = [count for folder, is_first in groups() if (count := _count(folder / _COUNTERS[is_first])) is not None]
    return max(told) if told else _count(_VMSTAT) or 0


def _count(path: Path) -> int | None:
    try:
        found = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        return int(found[_KILLS])
    except (OSError, ValueError, KeyError):
        return None
