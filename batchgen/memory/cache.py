"""Figures are kept on disk and used again: in a run, and in the user's cache directory or $BATCHGEN_CACHE."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batchgen.files import replace, to_json
from batchgen.memory.figures import Figures, Points, Weights
from batchgen.places import cache_dir


def load(key: str) -> Figures | None:
    """The figures kept under `key` in the cache; None if there are none or they cannot be read."""
    return read(_path(key))


def save(key: str, figures: Figures) -> None:
    """Keep the figures in the cache under `key`. If they cannot be written, the only cost is another probe."""
    with suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, figures)


def read(path: Path) -> Figures | None:
    """The figures at `path`; None if there are none or they cannot be read."""
    try:
        values = json.loads(path.read_bytes())
        points = {name: _points(values[name]) for name in _POINTS}
        pieces = tuple((float(pixels), _points(series)) for pixels, series in values["decode_s"])
        return Figures(**values | points | {"decode_s": pieces, "weights": Weights(**values["weights"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write(path: Path, figures: Figures) -> None:
    """Write the figures to `path`, in place of what is there. Raises OSError."""
    replace(path, to_json(asdict(figures)).encode() + b"\n")


_POINTS = ("pass_bytes", "pass_s", "decode_bytes", "stream_groups")


def _points(values: Any) -> Points:
    return tuple((float(amount), float(taken)) for amount, taken in values)


def _path(key: str) -> Path:
    return cache_dir() / "figures" / f"{key}.json"
