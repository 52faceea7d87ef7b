"""The fingerprint that identifies a model: a digest of the files that a run loads from its folder."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from batchgen.files import to_json
from batchgen.models.find import ModelFiles
from batchgen.models.parts import INDEX_FILE

VERSION = "2:"
_SAMPLED_BYTES = 1 << 20
_SAMPLES = 8


def fingerprint_model(model: ModelFiles, like: str | None = None) -> str:
    """The model's fingerprint, `2:<hex>`: the digest of the index, settings, tokenizers and weights that a run loads.

    It covers the names that the loader looks for, the sizes and the contents; large files are read in eight samples.
    Further training changes nearly all bytes of a model, so samples tell two models apart without reading gigabytes at
    each start. Files that are not loaded change nothing.
    `like` is the fingerprint to compare with. Plans of earlier versions have a bare <hex>, the digest of all files in
    the folder. It is returned where it matches all files, or all files that belong to the model (some may have been
    added since); otherwise the digest of all files is returned. Raises ModelError and OSError.
    """
    folder = model.folder
    loaded = _loaded(model)
    if like is None or like.startswith(VERSION):
        return VERSION + _digest(loaded.items())
    every = list(_all_files(folder))
    selections = _earlier(every, folder, loaded)
    digests = (_digest((path.relative_to(folder).as_posix(), path) for path in files) for files in selections)
    first = next(digests)
    return like if like == first or like in digests else first


def _loaded(model: ModelFiles) -> dict[str, Path]:
    # By the names that the loader looks for, in order
    files = {f"{part.name}/{name}": path for part in model.parts() for name, path in part.files.items()}
    files |= {f"embeddings/{word}": path for word, path in model.embeddings}
    return dict(sorted((files | {INDEX_FILE: model.folder / INDEX_FILE}).items()))


def _all_files(folder: Path) -> Iterator[Path]:
    # What the first version read: all files except hidden ones and *.md, also those in hidden folders
    parts = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    yield from sorted(path for path in parts if path.suffix != ".md")


def _earlier(every: list[Path], folder: Path, loaded: dict[str, Path]) -> Iterator[list[Path]]:
    """Which files an earlier version may have found: all, or all except those that may have been added since.

    Each selection holds every file that is loaded today, so a new file never passes for a planned one.
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
