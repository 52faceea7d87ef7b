"""What the settings model.path, model.base and model.vae name: a folder, a file, a hub id, or a file on the hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from batchgen.config.check import did_you_mean
from batchgen.errors import ModelError, in_one_line
from batchgen.models.parts import INDEX_FILE
from batchgen.places import models_dir

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/([\w./-]+\.safetensors)")
# Of a repository: a model's settings and words, and all that a VAE may be loaded from.
_SETTINGS = (INDEX_FILE, "*/*.json", "*/*.txt", "*/*.model", "*/*.jinja")
_VAE = ("config.json", "diffusion_pytorch_model*.safetensors", "vae/config.json", "vae/*.safetensors")


def local(key: str, text: str) -> Path | None:
    """The folder or file that a setting names; None for what is on the hub. Raises ModelError if it is neither."""
    folder = Path(text).expanduser()
    bundled = models_dir() / text
    if folder.name == text and (bundled / INDEX_FILE).is_file():
        return bundled
    if folder.exists():
        return folder
    if _HUB_ID.fullmatch(text) and not folder.parent.is_dir():
        return None
    if _HUB_FILE.fullmatch(text) and not Path(folder.parts[0]).is_dir():
        return None
    said = f"{key}={text}: no such folder, and not a hub id such as org/name"
    raise ModelError(said + _what_is_there(models_dir() if folder.name == text else folder.parent, folder))


def cached(key: str, text: str, revision: str | None) -> Path | None:
    """What a setting names, here or in the hub's cache; None where it is in neither. Raises ModelError. Offline."""
    if (found := local(key, text)) is not None:
        return found
    from huggingface_hub import try_to_load_from_cache

    if file := _HUB_FILE.fullmatch(text):
        path = try_to_load_from_cache(file[1], file[2], revision=revision)
        return Path(path) if isinstance(path, str) else None
    known = (INDEX_FILE, "config.json", "vae/config.json") if key == "model.vae" else (INDEX_FILE,)
    for name in known:
        path = try_to_load_from_cache(text, name, revision=revision)
        if isinstance(path, str):
            return Path(path.removesuffix(name))
    return None


def fetched(key: str, text: str, revision: str | None, encoders: Sequence[str] = ()) -> Path:
    """What a setting names, downloaded unless it is here or in the hub's cache. Raises ModelError, in one line.

    Of a VAE's repository the VAE is fetched, and of a base's the settings and the weights of its `encoders` and VAE.
    """
    if (found := local(key, text)) is not None:
        return found
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if file := _HUB_FILE.fullmatch(text):
            return Path(hf_hub_download(file[1], file[2], revision=revision))
        weights = [f"{name}/*.safetensors" for name in (*encoders, "vae")]
        patterns = _VAE if key == "model.vae" else (*_SETTINGS, *weights)
        return Path(snapshot_download(text, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises many kinds, each with a long text
        raise ModelError(not_downloaded(key, text, error)) from error


def download_pipeline(text: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a hub model, fetched unless it is in the cache. Only safetensors and plain files are taken.

    Raises ModelError, in one line, where it cannot be downloaded.
    """
    # The libraries stay silent: the ModelError below says in one line what went wrong.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(text, revision=revision, variant=variant, use_safetensors=True))
    except Exception as error:  # as above
        raise ModelError(not_downloaded("model.path", text, error)) from error


def is_hub_model(text: str) -> bool:
    """Whether a setting names a whole repository of the hub, as far as its form tells."""
    return _HUB_ID.fullmatch(text) is not None


def not_downloaded(key: str, text: str, error: Exception) -> str:
    """What to say where something on the hub cannot be had."""
    return (
        f"model {text} cannot be downloaded: {in_one_line(error)}. Check the id, the network and HF_TOKEN, or set "
        f"{key} to a local folder"
    )


def _what_is_there(beside: Path, folder: Path) -> str:
    """What to append for a folder that is not in `beside`: the model, or the folder, that may be meant."""
    if not beside.is_dir():
        return f"; there is no folder {beside} either"
    try:
        folders = sorted(path.name for path in beside.iterdir() if path.is_dir() and path.name[0] not in "._")
        files = sorted(path.name for path in beside.glob("*.safetensors"))
    except OSError:
        return ""
    found = [name for name in folders if (beside / name / INDEX_FILE).is_file()] + files
    of_models, of_all = did_you_mean(folder.name, found), did_you_mean(folder.name, folders)
    if of_all.startswith("; did you mean") and not of_models.startswith("; did you mean"):
        return of_all
    return of_models if found else ""
