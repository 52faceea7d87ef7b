"""Measured rows are kept on disk and used again: in the user's cache directory or $BATCHGEN_CACHE."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import batchgen
from batchgen.bench.job import Job
from batchgen.bench.rows import BATCHES, Row
from batchgen.files import replace, sha256_bytes, to_json
from batchgen.machine.versions import versions
from batchgen.places import cache_dir

# Raise this when a script by hand, or the meaning of a figure, changes.
_WAY_OF_MEASURING = 1


def key_of(job: Job, row: Row, fingerprint: str) -> str:
    """Under what name a row is kept: by the device, the versions, the model's fingerprint and the settings it heeds."""
    config, task = job.config, asdict(job.task)
    if row.group != BATCHES:
        task |= {"rows": 1, "batches": 1}
    facts = [
        _WAY_OF_MEASURING, row.name, job.place.name, os.environ.get("OMP_NUM_THREADS"), versions(), fingerprint, task,
        config.job.scheduler, config.model.timestep_spacing, config.model.timestep_shift, job.dtype(row),
    ]  # fmt: skip
    if row.maker == "own":
        facts += [asdict(config.model), asdict(config.memory), asdict(config.speed), asdict(config.output)]
        facts += [dict(row.speed), config.determinism, config.job.negative_prompt, _code()]
    return sha256_bytes(to_json(facts).encode())[:32]


@cache
def _code() -> str:
    """The digest of batchgen's own code, whose version says nothing of a checkout that is worked on."""
    root, digest = Path(batchgen.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def load(key: str) -> dict[str, Any] | None:
    """The figures kept under `key`; None if there are none or they cannot be read."""
    try:
        figures = json.loads(_path(key).read_bytes())
        return figures if isinstance(figures, dict) else None
    except (OSError, ValueError):
        return None


def save(key: str, figures: dict[str, Any]) -> None:
    """Keep the figures. If they cannot be written, the only cost is to measure them again."""
    with suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, to_json(figures).encode() + b"\n")


def _path(key: str) -> Path:
    return cache_dir() / "bench" / f"{key}.json"
