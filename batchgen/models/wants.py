"""What a configuration wants from the hub: its model, and the files and models that go into it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError
from batchgen.models.find import family_in, find_model, wanted
from batchgen.models.hub import Repository, outline
from batchgen.models.parts import weight_files

_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)/([\w./ -]+\.safetensors)(?::-?[\d.]+)?")
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Want:
    """A repository of the hub that the setting `key` names. `file`: the one file of it that is wanted, or None."""

    key: str
    name: str
    file: str | None = None
    revision: str | None = None


def wants_of(model: ModelConfig) -> list[Want]:
    """What the settings of a model name that is on the hub, each once. Raises ModelError for a path that is nowhere."""
    found = [_hub_file("model.path", model.path)] if _FILE.fullmatch(model.path) else []
    if not found and find_model(model) is None:
        found.append(Want("model.path", model.path, revision=model.revision))
    for key in ("base", "vae", "lora"):
        for text in _texts(getattr(model, key, None)):
            found.append(_hub_file(f"model.{key}", text))
            if key in ("base", "vae") and _MODEL.fullmatch(text) and not Path(text).parent.is_dir():
                found.append(Want(f"model.{key}", text))
    return list(dict.fromkeys(want for want in found if want is not None))


def _texts(said: Any) -> Iterator[str]:
    # Of a text, of texts that are joined by +, or of a list
    if isinstance(said, str):
        yield from (one.strip() for one in said.split("+"))
    elif isinstance(said, list):
        for one in said:
            yield from _texts(one)


def _hub_file(key: str, text: str) -> Want | None:
    found = _FILE.fullmatch(text)
    if found is None or Path(text).exists() or Path(text).parent.is_dir():
        return None
    return Want(key, found[1], found[2])


def names_of(want: Want, repository: Repository, model: ModelConfig) -> list[str]:
    """Which files of the repository are wanted. Raises ModelError where they are not there or could not be used."""
    if want.file is not None:
        if want.file not in repository.files:
            there = sorted(name for name in repository.files if name.endswith(".safetensors"))
            raise ModelError(f"{want.key}: {want.name} has no {want.file}{did_you_mean(want.file, there)}")
        return [want.file]
    if want.key == "model.vae":
        return _vae(repository, model.variant)
    names = wanted(repository, model)
    return names if want.key == "model.path" else list(_without_denoiser(repository, names))


def _vae(repository: Repository, variant: str | None) -> list[str]:
    """The files of the VAE in a whole model, or of a repository that is a VAE."""
    place = "vae/" if "vae/config.json" in repository.files else ""
    with outline(repository) as folder:
        weights = weight_files(folder, place, variant)
        if f"{place}config.json" not in repository.files or not weights:
            raise ModelError(f"model.vae: {repository.name} has no VAE in the diffusers layout, as safetensors")
        return [f"{place}config.json", *(path.relative_to(folder).as_posix() for path in weights.values())]


def _without_denoiser(repository: Repository, names: list[str]) -> Iterator[str]:
    # A base gives what a model in one file lacks, which is never the denoiser.
    with outline(repository) as folder:
        denoiser = family_in(folder).denoiser
    yield from (name for name in names if not (name.startswith(f"{denoiser}/") and name.endswith(".safetensors")))
