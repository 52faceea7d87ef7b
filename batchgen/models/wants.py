"""What a setting wants of a repository on the hub: one file, a model, a VAE, or what a model in one file lacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batchgen.config.check import did_you_mean
from batchgen.errors import ModelError
from batchgen.models.families import family_in
from batchgen.models.hub import Repository, outline
from batchgen.models.parts import INDEX_FILE, part_in, parts_of, read_index, refuse_misspelt, weight_files


@dataclass(frozen=True, slots=True)
class Want:
    """A repository of the hub that the setting `key` names. `file`: the one file of it that is wanted, or None."""

    key: str
    name: str
    file: str | None = None
    revision: str | None = None


def names_of(want: Want, repository: Repository, variant: str | None, safety_checker: bool) -> list[str]:
    """Which files of the repository are wanted.

    Raises ModelError where they are not there or could not be used, and DownloadError where the hub does not answer.
    """
    if want.file is None:
        with outline(repository) as folder:
            return names_in(folder, want, variant, safety_checker)
    if want.file not in repository.files:
        there = sorted(name for name in repository.files if name.endswith(".safetensors"))
        raise ModelError(f"{want.key}: {want.name} has no {want.file}{did_you_mean(want.file, there)}")
    return [want.file]


def names_in(folder: Path, want: Want, variant: str | None, safety_checker: bool) -> list[str]:
    """Which files are wanted of a repository that is in a folder, or is outlined there. Raises ModelError."""
    if want.file is not None:
        paths = [folder / want.file]
    elif want.key == "model.vae":
        paths = _vae(folder, want.name, variant)
    else:
        family_in(folder)
        refuse_misspelt(folder, variant)
        parts = _base if want.key == "model.base" else _model
        paths = [*parts(folder, variant, safety_checker), folder / INDEX_FILE]
    if missing := [path for path in paths if not path.is_file()]:
        raise ModelError(f"{want.name} lacks {missing[0].relative_to(folder)}")
    return [path.relative_to(folder).as_posix() for path in paths]


def _model(folder: Path, variant: str | None, safety_checker: bool) -> Iterator[Path]:
    for part in parts_of(folder, variant, safety_checker):
        yield from part.files.values()


def _vae(folder: Path, name: str, variant: str | None) -> list[Path]:
    # Of a whole model, or of a repository that is a VAE
    place = "vae" if (folder / "vae" / "config.json").is_file() else ""
    weights = weight_files(folder, place, variant)
    if not weights or not (folder / place / "config.json").is_file():
        raise ModelError(f"model.vae: {name} has no VAE in the diffusers layout, as safetensors")
    return [folder / place / "config.json", *weights.values()]


def _base(folder: Path, variant: str | None, safety_checker: bool) -> Iterator[Path]:
    # What a model in one file may lack: all but the denoiser, whose settings say what the file holds.
    denoiser = family_in(folder).denoiser
    left_out = (denoiser, "image_encoder", *(() if safety_checker else ("safety_checker", "feature_extractor")))
    yield folder / denoiser / "config.json"
    for name, (library, kind) in sorted(read_index(folder)[1].items()):
        if name not in left_out and (folder / name).is_dir():
            yield from part_in(folder, name, library, kind, variant).files.values()
