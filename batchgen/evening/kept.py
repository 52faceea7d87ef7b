"""Measured paces are kept on disk and used again: in the user's cache directory or $BATCHGEN_CACHE."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from batchgen.config.schema import Config
from batchgen.evening.pace import Pace, Paces
from batchgen.files import replace, to_json
from batchgen.memory.measure import facts_of
from batchgen.places import cache_dir

# Raise this when the same work takes other time than before, or when the meaning of a figure changes.
_WAY_OF_MEASURING = 1


def key_of(config: Config, model: str, device_kind: str, dtype: str) -> str:
    """Under what name paces are kept: `model` is the model's fingerprint, and a CPU has the number of its cores."""
    cores = os.cpu_count() if device_kind == "cpu" else None
    compile = [] if config.speed.compile == "eager" else [config.speed.compile]
    facts = [_WAY_OF_MEASURING, *facts_of(config, model, device_kind, dtype), config.job.scheduler, cores, *compile]
    return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


def load(key: str) -> Paces:
    """The paces kept under `key`; empty ones if there are none or they cannot be read."""
    try:
        values = json.loads(_path(key).read_bytes())
        sizes = {
            str(name): Pace(**{**pace, "pass_s": tuple((float(rows), float(taken)) for rows, taken in pace["pass_s"])})
            for name, pace in values["sizes"].items()
        }
        image_bytes = {str(name): (float(each), int(images)) for name, (each, images) in values["image_bytes"].items()}
        start_s = None if values["start_s"] is None else float(values["start_s"])
        return Paces(sizes, start_s, float(values["shard_s"]), float(values["end_s"]), image_bytes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Paces()


def keep(key: str, paces: Paces) -> None:
    """Keep newer paces under `key`, beside what is kept. If they cannot be written, a later estimate lacks them."""
    with suppress(OSError, ValueError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = load(key).with_more(paces)
        values = {
            "sizes": {name: asdict(pace) for name, pace in known.sizes.items()},
            "start_s": known.start_s,
            "shard_s": known.shard_s,
            "end_s": known.end_s,
            "image_bytes": dict(known.image_bytes),
        }
        replace(path, to_json(values).encode() + b"\n")


def _path(key: str) -> Path:
    return cache_dir() / "paces" / f"{key}.json"
