"""The recipe: what must not change when a run is resumed, and the diff when it did."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batchgen.config import Config, flatten
from batchgen.files import sha256_file

# Free to change on a resume: where and how the run is worked on, not what comes out.
FREE = (
    "run_dir", "dry_run", "extend", "retry_failed", "launch", "job.name", "job.prompts", "job.on_bad_row",
    "model.path", "model.size_px", "model.guidance", "memory.max_vram", "memory.assume_vram",
)  # fmt: skip


def inputs_of(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, bytes and sha256 of each prompt file, in order."""
    return [{"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files]


def recipe_of(config: Config, model_fingerprint: str) -> dict[str, Any]:
    """The settings that decide what comes out, dotted, with the model's content in place of its path."""
    flat = flatten(asdict(config))
    kept = {key: value for key, value in flat.items() if not _is_free(key)}
    return kept | {"model": model_fingerprint}


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One 'key: old -> new' for each difference between two recipes."""
    # Through JSON, since one side comes from a file.
    old, new = json.loads(json.dumps(old)), json.loads(json.dumps(new))
    return [
        f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def input_changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> tuple[list[str], list[int]]:
    """What happened to the prompt files: ('file: how it changed', places of files that are new).

    A file is known by its content: it may move, and it must not be edited.
    """
    unmatched = Counter(one["sha256"] for one in old)
    added = []
    for place, one in enumerate(new):
        if unmatched[one["sha256"]]:
            unmatched[one["sha256"]] -= 1
        else:
            added.append(place)
    added_names = {new[place]["file"] for place in added}
    lost = []
    for one in reversed(old):
        if unmatched[one["sha256"]]:
            unmatched[one["sha256"]] -= 1
            lost.append(one["file"])
    return [f"{name}: {'edited' if name in added_names else 'gone'}" for name in lost], added


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-19:]}"
