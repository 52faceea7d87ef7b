"""Who a process is, and whether it is gone. Known for processes of this machine and this boot alone."""

import os
import socket
from pathlib import Path
from typing import Any

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity() -> dict[str, Any]:
    """This process: host, boot, pid and when it started (s since the epoch)."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def is_gone(who: Any) -> bool:
    """Whether the process of an `identity` has certainly ended; False where that cannot be known from here."""
    if not isinstance(who, dict) or who.get("host") != socket.gethostname():
        return False
    if who.get("boot") != _boot():
        return True  # this machine was started again since
    try:
        # A pid is used again, a pid with the same start is not.
        return abs(psutil.Process(who.get("pid")).create_time() - float(who.get("started", 0))) > 2.0
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, TypeError, ValueError):
        return False


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(round(psutil.boot_time()))
