"""How much of a hub model is still to be downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.config.schema import ModelConfig
from batchgen.errors import BatchgenError
from batchgen.models.find import ModelFiles, files_in

_LIMIT_S = 10.0
_WEIGHTS = ".safetensors"
_PLAIN = (".json", ".txt", ".model")


@dataclass(frozen=True, slots=True)
class Download:
    """`bytes` to fetch; None if that is not known, with the reason in `why`."""

    bytes: int | None
    why: str = ""


def in_cache(model: ModelConfig) -> ModelFiles | None:
    """The files of a hub model that is in the cache with all its parts; None otherwise. Asks no network."""
    try:
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(model.path, "model_index.json", revision=model.revision)
        files = files_in(Path(str(index)).parent, model)
        return files if isinstance(index, str) and files.parts() else None
    except (BatchgenError, OSError, ValueError):  # a part is missing; the hub refuses a name that cannot be an id
        return None


def to_download(model: ModelConfig) -> Download:
    """What has to be fetched of a hub id that is not in the cache.

    The hub is asked for sizes only, and not at all if it is told to be offline. What counts are the weights of the
    wanted variant, or the plain ones of a part that has no such variant. Never raises.
    """
    try:
        from huggingface_hub import HfApi, constants

        if constants.HF_HUB_OFFLINE:
            return Download(None, "HF_HUB_OFFLINE is set")
        found = HfApi().model_info(model.path, revision=model.revision, files_metadata=True, timeout=_LIMIT_S)
    except Exception as error:  # no network, no such model, no leave to see it; each in words of its own
        return Download(None, str(error).strip().partition("\n")[0] or type(error).__name__)
    files = {str(one.rfilename): int(one.size or 0) for one in found.siblings or ()}
    return Download(sum(files[name] for name in _wanted(files, model.variant)))


def _wanted(files: dict[str, Any], variant: str | None) -> list[str]:
    """The files that a run loads: those of the parts, which are in folders, and the index."""
    inside = [name for name in files if name.count("/") == 1]
    plain = [name for name in inside if name.endswith(_PLAIN)] + [name for name in files if name == "model_index.json"]
    weights: dict[str, list[str]] = {}
    for name in inside:
        if name.endswith(_WEIGHTS):
            weights.setdefault(name.partition("/")[0], []).append(name)
    chosen = []
    for names in weights.values():
        with_variant = [name for name in names if variant is not None and f".{variant}." in name]
        chosen += with_variant or [name for name in names if name.partition("/")[2].count(".") == 1]
    return plain + chosen
