"""What has to be had of a model before a run can begin: downloads from the hub, and a file that is unpacked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batchgen.config.schema import ModelConfig
from batchgen.evening.lines import Line
from batchgen.models.checkpoint import look
from batchgen.models.find import is_plain_hub
from batchgen.models.sources import cached
from batchgen.units import gib

_LIMIT_S = 10.0
_WEIGHTS = ".safetensors"
_PLAIN = (".json", ".txt", ".model")


@dataclass(frozen=True, slots=True)
class Download:
    """`bytes` to fetch; None if that is not known, with the reason in `why`."""

    bytes: int | None
    why: str = ""


def first_line(model: ModelConfig) -> Iterator[Line]:
    """What a run does first where the model is one file, or is put together from what is not all here.

    Raises ModelError for a file that batchgen cannot use.
    """
    named = {"model.path": model.path, "model.base": model.base, "model.vae": model.vae}
    if is_plain_hub(model):
        return
    for key, text in named.items():
        found = None if text is None else cached(key, text, None)
        if text is not None and found is None:
            yield Line("first", f"{key}={text} is downloaded", {f"{key}_download": text})
        elif found is not None and found.is_file():
            file = look(key, found)
            said = f"{found} ({file.title}) is unpacked into the cache unless it is there: {gib(file.bytes)} of disk"
            yield Line("first", said, {f"{key}_unpacked_bytes": file.bytes, f"{key}_family": file.title})


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
