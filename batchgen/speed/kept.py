"""What was measured about compiling is kept on disk, beside the figures of memory, for later jobs on such a card."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from batchgen.files import replace, to_json
from batchgen.places import cache_dir
from batchgen.speed.worth import Measured, Timed


def code_dir() -> Path:
    """Where compiled code is kept, for all workers and later runs."""
    return cache_dir() / "compiled"


def load(key: str) -> Measured | None:
    """What is kept under `key`; None if there is nothing or it cannot be read."""
    try:
        values = json.loads(_path(key).read_bytes())
        ways = {name: Timed(**values[name]) for name in ("eager", "compiled", "graphed") if values.get(name)}
        return Measured(**values | ways)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save(key: str, measured: Measured) -> None:
    """Keep what was measured. If it cannot be written, the only cost is to measure it again."""
    with suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, to_json(asdict(measured)).encode() + b"\n")


def _path(key: str) -> Path:
    return cache_dir() / "levers" / f"{key}.json"
