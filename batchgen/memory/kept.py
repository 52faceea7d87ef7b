"""Measured figures, kept on disk and used again: in the user's cache directory, or in $BATCHGEN_CACHE."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batchgen.files import put_new, to_json
from batchgen.memory.figures import Figures, Points, Weights
from batchgen.paths import cache_dir


def load(key: str) -> Figures | None:
    """The figures kept under `key`; None if there are none, or none that can be read."""
    try:
        values = json.loads(_path(key).read_bytes())
        points = {name: _points(values[name]) for name in _POINTS}
        pieces = tuple((float(pixels), _points(series)) for pixels, series in values["decode_s"])
        return Figures(**values | points | {"decode_s": pieces, "weights": Weights(**values["weights"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save(key: str, figures: Figures) -> None:
    """Keep the figures. A cache that cannot be written costs another probe and nothing else."""
    with suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        put_new(path, to_json(asdict(figures)).encode() + b"\n")


_POINTS = ("pass_bytes", "pass_s", "decode_bytes", "stream_groups")


def _points(values: Any) -> Points:
    return tuple((float(amount), float(taken)) for amount, taken in values)


def _path(key: str) -> Path:
    return cache_dir() / "figures" / f"{key}.json"
