"""What a model is known by: a digest of the files that a run loads from its folder."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from batchgen.config.schema import ModelConfig
from batchgen.files import to_json
from batchgen.models.parts import INDEX_FILE, parts_of

VERSION = "2:"
_SAMPLED_BYTES = 1 << 20
_SAMPLES = 8


def fingerprint_model(folder: Path, model: ModelConfig, like: str | None = None) -> str:
    """The model's fingerprint, `2:<hex>`: of the index, settings, tokenizers and weights that a run loads, by their
    names to the loader, their sizes and their contents; of large files eight samples are read.

    A model that was trained on differs in nearly all its bytes, so samples tell it apart without reading gigabytes at
    each start. Files that are not loaded change nothing.
    `like` is a fingerprint to compare with. Plans of earlier versions have a bare <hex>, a digest of all files of the
    folder: it is given back where it is the digest of all files, or of all that belong to the model, since files were
    added; else the digest of all files is given. Raises ModelError and OSError.
    """
    loaded = _loaded(folder, model)
    if like is None or like.startswith(VERSION):
        return VERSION + _digest(loaded.items())
    every = list(_all_files(folder))
    selections = _earlier(every, folder, loaded)
    digests = (_digest((path.relative_to(folder).as_posix(), path) for path in files) for files in selections)
    first = next(digests)
    return like if like == first or like in digests else first


def _loaded(folder: Path, model: ModelConfig) -> dict[str, Path]:
    # By their names to the loader, in order
    parts = parts_of(folder, model.variant, model.safety_checker != "off")
    files = {f"{part.name}/{name}": path for part in parts for name, path in part.files.items()}
    return dict(sorted((files | {INDEX_FILE: folder / INDEX_FILE}).items()))


def _all_files(folder: Path) -> Iterator[Path]:
    # What the first version read: all but hidden files and cards, those in hidden folders too
    parts = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    yield from sorted(path for path in parts if path.suffix != ".md")


def _earlier(every: list[Path], folder: Path, loaded: dict[str, Path]) -> Iterator[list[Path]]:
    """Which files an earlier version may have found: all, or all but what may have been added since.

    Whatever is loaded today is among them, so that nothing new is ever taken for what was planned with.
    """
    yield every
    visible = [path for path in every if not any(name.startswith(".") for name in path.relative_to(folder).parts)]
    names = {name.partition("/")[0] for name in loaded}
    of_parts = [path for path in visible if path.relative_to(folder).parts[0] in names]
    for fewer in (visible, of_parts, sorted(loaded.values())):
        if set(loaded.values()) <= set(fewer) < set(every):
            yield fewer


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        size_bytes = path.stat().st_size
        digest.update(to_json([name, size_bytes]).encode())
        with path.open("rb") as file:
            if size_bytes <= _SAMPLES * _SAMPLED_BYTES:
                digest.update(file.read())
                continue
            for sample in range(_SAMPLES):
                file.seek((size_bytes - _SAMPLED_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()
