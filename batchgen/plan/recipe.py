"""The recipe: what must not change when a run is resumed, and the diff when it did."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from batchgen.config.schema import Config, flatten, from_plain
from batchgen.types import Lora

# The way of computing is counted up when a change alters pixels. A plan that does not state it was made by 1.
# 2: a chosen scheduler is corrected as diffusers' constructors correct it, guidance scales stay in fp32, and a VAE's
# latents_mean is left out where the family's own pipeline leaves it out.
COMPUTES = 2
# These may change on a resume: they say where and how the run is worked on, not what comes out.
FREE = (
    "run_dir", "dry_run", "extend", "retry_failed", "launch", "job.name", "job.prompts", "job.limit",
    "job.on_bad_row", "model.path", "model.base", "model.vae", "model.embeddings", "model.lora", "model.size_px",
    "model.guidance", "model.steps", "model.scheduler", "memory.max_vram", "memory.assume_vram", "price_per_gpu_hour",
    "output.copy_to", "output.keep_local",
)  # fmt: skip
# The values of keys that came after the plan, where they are not the keys' defaults. Jobs had a scheduler of their own
# before models had one.
_BEFORE: dict[str, Any] = {"model.scheduler": None}
# Null leaves the value to the planner, so an existing plan is right whatever its value is.
_PLANNERS = ("output.batches_per_shard", "model.guided_above")


def recipe_of(config: Config, model_fingerprint: str, loras: Sequence[Lora] = ()) -> dict[str, Any]:
    """The settings that decide what comes out, dotted, with the model's content in place of its path.

    `loras`: the job's, of which the content counts, too.
    """
    flat = flatten(asdict(config))
    kept = {key: value for key, value in flat.items() if not is_free(key)}
    added = {"loras": [[one.sha256, one.weight] for one in loras]} if loras else {}
    return kept | {"model": model_fingerprint} | added


def is_free(key: str) -> bool:
    """Whether a dotted key may change when a run is resumed."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def set_key(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in a nested dictionary."""
    *groups, leaf = key.split(".")
    for group in groups:
        plain = plain.setdefault(group, {})
    plain[leaf] = value


def as_planned(values: dict[str, Any]) -> Config:
    """The configuration of a plan, from what its config.yaml holds."""
    for key in _BEFORE.keys() - flatten(values).keys():
        set_key(values, key, _BEFORE[key])
    return from_plain(values)


def completed(flat: dict[str, Any]) -> dict[str, Any]:
    """A plan's settings by dotted keys, with what the code did by then for each key that came later."""
    return flatten(asdict(Config())) | _BEFORE | flat


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One 'key: old -> new' for each difference between two recipes, `old` being that of a plan."""
    # Through JSON, since one side comes from a file.
    old, new = json.loads(json.dumps(old)), json.loads(json.dumps(new))
    before = completed(old)
    pairs = {key: (before.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())}
    return [
        f"{key}: {_short(was)} -> {_short(wanted)}"
        for key, (was, wanted) in pairs.items()
        if was != wanted and not is_free(key) and not (wanted is None and key in _PLANNERS)
    ]


def computed_otherwise(computes: int, scheduler: str) -> str | None:
    """What to say where a run was begun by another way of computing; None where it was this one."""
    if computes == COMPUTES:
        return None
    how = "in low bits" if scheduler == "model" else f"in low bits, and visibly with job.scheduler={scheduler}"
    return f"another version of batchgen began this run: images made from now on may differ from the earlier ones {how}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-19:]}"
