"""What the settings model.path, model.base and model.vae name: a folder, a file, a hub id, or a file on the hub."""

import re
from pathlib import Path

from batchgen.config.check import did_you_mean
from batchgen.config.loras import parse_loras
from batchgen.config.schema import ModelConfig
from batchgen.console import say
from batchgen.errors import DownloadError, ModelError
from batchgen.models.hub import Repository, is_commit, is_offline, look
from batchgen.models.parts import INDEX_FILE
from batchgen.models.transfer import fetch
from batchgen.models.wants import Want, names_in, names_of
from batchgen.places import models_dir

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/([\w./ -]+\.safetensors)")


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


def fetched(key: str, text: str, revision: str | None, variant: str | None, safety_checker: bool) -> Path:
    """What a setting names, downloaded unless it is here or in the hub's cache.

    The network is not asked for a commit that is in the cache; where the hub does not answer, what is in the cache
    counts. Raises ModelError and DownloadError, in one line, where it cannot be had, and OSError.
    """
    if (found := local(key, text)) is not None:
        return found
    want = _want(key, text, revision)
    here = _whole(want, text, variant, safety_checker)
    if here is not None and is_commit(revision):
        return here
    try:
        repository = look(want.name, want.revision)
    except (ModelError, DownloadError) as error:
        if here is None:
            raise _nowhere(want, error) from error.__cause__
        if not is_offline():
            say(f"{error}; what is in the cache counts, {here}")
        return here
    fetch(repository, names_of(want, repository, variant, safety_checker))
    return repository.folder / (want.file or "")


def looked_up(want: Want) -> Repository:
    """What the repository of a wanted file or model holds.

    Raises ModelError and DownloadError, in one line that says that it is not here either: the path may be mistyped.
    """
    try:
        return look(want.name, want.revision)
    except (ModelError, DownloadError) as error:
        raise _nowhere(want, error) from error.__cause__


def _nowhere(want: Want, error: ModelError | DownloadError) -> ModelError | DownloadError:
    what = f"folder {want.name}" if want.file is None else f"file {want.name}/{want.file}"
    return type(error)(f"{error}; nor is there a {what} here")


def _whole(want: Want, text: str, variant: str | None, safety_checker: bool) -> Path | None:
    """Where the cache has all that is wanted; None where something of it lacks."""
    try:
        here = cached(want.key, text, want.revision)
        if here is not None and want.file is None:
            names_in(here, want, variant, safety_checker)
    except (ModelError, OSError, ValueError):  # the hub refuses a name that cannot be an id
        return None
    return here


def wants_of(model: ModelConfig) -> list[Want]:
    """What the settings of a model name that is on the hub, each once. Raises ModelError for a path that is nowhere."""
    named = {"model.path": model.path, "model.base": model.base, "model.vae": model.vae}
    found = [
        _want(key, text, model.revision if key == "model.path" else None)
        for key, text in named.items()
        if text is not None and local(key, text) is None
    ]
    for text, _ in parse_loras(model.lora):
        if not Path(text).expanduser().exists() and _HUB_FILE.fullmatch(text) and not Path(text).parent.is_dir():
            found.append(_want("model.lora", text, None))
    return list(dict.fromkeys(found))


def _want(key: str, text: str, revision: str | None) -> Want:
    file = _HUB_FILE.fullmatch(text)
    return Want(key, text, None, revision) if file is None else Want(key, file[1], file[2], revision)


def is_hub_model(text: str) -> bool:
    """Whether a setting names a whole repository of the hub, as far as its form tells."""
    return _HUB_ID.fullmatch(text) is not None


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
