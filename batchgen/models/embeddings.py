"""Textual inversions: files with vectors that text encoders get for a new word (Gal et al., arxiv.org/abs/2208.01618).

They are read as trainers write them: `emb_params`, `clip_l` and `clip_g`, or one tensor under the word's own name.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.errors import ConfigError, ModelError
from batchgen.models.checkpoint import refuse_format
from batchgen.models.parts import Part, header, settings

Embeddings = tuple[tuple[str, Path], ...]
"""Words and their files. Words are in lower case: CLIP reads all texts so."""
KEY = "model.embeddings"
_FOR = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def named(value: Any) -> Embeddings:
    """The words and files of model.embeddings: FILE, whose name is the word, or WORD=FILE, or a list of these.

    Raises ConfigError for another form, and ModelError for a file that is not there or not of safetensors.
    """
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise ConfigError(f"{KEY} must be a list of FILE.safetensors or WORD=FILE.safetensors")
    found: dict[str, Path] = {}
    for one in listed:
        before, _, after = one.rpartition("=")
        path = Path(after).expanduser()
        word = (before or path.stem).lower()
        if not path.is_file():
            raise ModelError(f"{KEY}={one}: there is no file {path}")
        refuse_format(KEY, path)
        if word in found or not word or re.search(r"\s", word):
            why = "is there twice" if word in found else "must not have spaces"
            raise ModelError(f"{KEY}={one}: the word {word!r} {why}; name another with WORD=FILE")
        found[word] = path
    return tuple(found.items())


def tensors_of(path: Path) -> dict[str, str]:
    """The name of the tensor in the file for each text encoder. Raises ModelError where it is no textual inversion."""
    found = header(path)
    if found.keys() & _FOR.keys():
        return {encoder: name for name, encoder in _FOR.items() if name in found}
    if "emb_params" in found:
        return {"text_encoder": "emb_params"}
    if len(found) == 1 and all(len(one.shape) in (1, 2) for one in found.values()):
        return {"text_encoder": next(iter(found))}
    raise ModelError(f"{KEY}={path} is no textual inversion that batchgen knows: it has {', '.join(sorted(found)[:3])}")


def vectors(path: Path) -> int:
    """How many vectors, and so tokens, the file's word stands for. Raises ModelError."""
    shapes = [header(path)[name].shape for name in tensors_of(path).values()]
    return max(shape[0] if len(shape) > 1 else 1 for shape in shapes)


def pieces(word: str, count: int) -> list[str]:
    """The tokens that stand for a word of so many vectors, as diffusers names them."""
    return [word, *(f"{word}_{place}" for place in range(1, count))]


def expanded(text: str, counts: Mapping[str, int]) -> str:
    """The text with each word of `counts`, in whatever case, as its tokens."""
    if not counts:
        return text
    longest_first = sorted(counts, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
    return pattern.sub(lambda found: " ".join(pieces(found[0].lower(), counts[found[0].lower()])), text)


def check_embeddings(embeddings: Embeddings, title: str, encoders: Sequence[str], parts: Sequence[Part]) -> None:
    """Raise ModelError for embeddings that do not fit a model.

    `title`: what people call the model's family. `encoders`: which of its parts take new words; none do in most.
    """
    if embeddings and not encoders:
        raise ModelError(f"{KEY}: {title} does not take textual inversions; leave it out")
    known = {part.name: part for part in parts}
    for word, path in embeddings:
        tensors, found = tensors_of(path), header(path)
        if {*tensors} != {*encoders}:
            has, needs = len(tensors), len(encoders)
            raise ModelError(
                f"{KEY}={path} has vectors for {has} text encoder{'s' if has > 1 else ''}, and {title} has {needs}: it "
                "was made for another family"
            )
        for encoder, name in tensors.items():
            width, wanted = found[name].shape[-1], settings(known[encoder]).get("hidden_size")
            if width != wanted:
                said = f"has vectors of {width} numbers, and this model's {encoder} takes {wanted}"
                raise ModelError(f"{KEY}={path} {said}: it was made for another model")
        if word in _vocabulary(known["tokenizer"]):
            raise ModelError(f"{KEY}: the model knows the word {word!r} already; name another with WORD={path}")


def _vocabulary(tokenizer: Part) -> set[str]:
    if "vocab.json" in tokenizer.files:
        return {*settings(tokenizer, "vocab.json")}
    model = settings(tokenizer, "tokenizer.json").get("model")
    return {*(model.get("vocab", {}) if isinstance(model, dict) else {})}
