"""Textual inversions: files with vectors that text encoders get for a new word (Gal et al., arxiv.org/abs/2208.01618).

They are read as trainers write them: `emb_params`, `clip_l` and `clip_g`, or one tensor under the word's own name.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchgen.errors import ConfigError, ModelError
from batchgen.models.checkpoint import refuse_format
from batchgen.models.parts import Part, Tensor, header, settings

Embeddings = tuple[tuple[str, Path], ...]
"""Words and their files. Words are in lower case: CLIP reads all texts so."""
KEY = "model.embeddings"
_FOR = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
# How numbers are unpacked, and the bits of their exponents
_EXPONENTS = {"F64": ("Q", 0x7FF << 52), "F32": ("I", 0x7F800000), "F16": ("H", 0x7C00), "BF16": ("H", 0x7F80)}
_TOKENS, _MARKS = 77, 2  # of a text, with the marks of its start and end
_END = "</w>"


def named(value: Any) -> Embeddings:
    """The words and files of model.embeddings: FILE, whose name is the word, or WORD=FILE, or a list of these.

    Raises ConfigError for another form, and ModelError for a file that is not there or not of safetensors.
    """
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise ConfigError(f"{KEY} must be a list of FILE.safetensors or WORD=FILE.safetensors")
    found: dict[str, Path] = {}
    for one in listed:
        said, path = _split(one)
        word = (path.stem if said is None else said).lower()
        if not path.is_file():
            raise ModelError(f"{KEY}={one}: there is no file {path}")
        refuse_format(KEY, path)
        if not word:
            raise ModelError(f"{KEY}={one} has no word before the =; write WORD=FILE, or FILE alone")
        if word in found or re.search(r"\s", word):
            why = "is there twice" if word in found else "must not have spaces"
            raise ModelError(f"{KEY}={one}: the word {word!r} {why}; name another with WORD=FILE")
        found[word] = path
    return tuple(found.items())


def _split(text: str) -> tuple[str | None, Path]:
    """The word, if one is written, and the file. Both may have a `=` in them."""
    whole = Path(text).expanduser()
    if whole.is_file() or "=" not in text:
        return None, whole
    ways = [(text[:place], Path(text[place + 1 :]).expanduser()) for place, one in enumerate(text) if one == "="]
    return next((way for way in ways if way[1].is_file()), ways[-1])


def tensors_of(path: Path) -> dict[str, str]:
    """The name of the tensor in the file for each text encoder. Raises ModelError where it is no textual inversion."""
    found = header(path)
    named = {encoder: name for name, encoder in _FOR.items() if name in found}
    if not named and ("emb_params" in found or len(found) == 1):
        named = {"text_encoder": "emb_params" if "emb_params" in found else next(iter(found))}
    if not named or any(len(found[name].shape) not in (1, 2) for name in named.values()):
        has = ", ".join(sorted(found)[:3]) or "no tensors"
        raise ModelError(f"{KEY}={path} is no textual inversion that batchgen knows: it has {has}")
    return named


def vectors(path: Path) -> int:
    """How many vectors, and so tokens, the file's word stands for. Raises ModelError."""
    shapes = [header(path)[name].shape for name in tensors_of(path).values()]
    return max(shape[0] if len(shape) > 1 else 1 for shape in shapes)


# Words in texts ---------------------------------------------------------------------------------------------------


def token(word: str) -> str:
    """The name that tokenizers get for a word: nothing that a text has in it, and no token of theirs."""
    return f"<|+{word}|>"


def pieces(word: str, count: int) -> list[str]:
    """The tokens that stand for a word of so many vectors, as diffusers names them."""
    return [token(word), *(f"{token(word)}_{place}" for place in range(1, count))]


def expanded(text: str, counts: Mapping[str, int]) -> str:
    """The text with each whole word of `counts`, in whatever case, as its tokens.

    A word is found where it is not part of a longer one: `ink` is not in `drinking`, and `<cat>` is in `<cat>s`.
    """
    if not counts:
        return text
    words = sorted(counts, key=len, reverse=True)

    def tokens(found: re.Match[str]) -> str:
        word = words[(found.lastindex or 1) - 1]
        goes_on = text[
            found.end() : found.end() + 1
        ].isalnum()  # a digit would be read as part of the last token's name
        return " ".join(pieces(word, counts[word])) + " " * goes_on

    return re.sub("|".join(map(_whole, words)), tokens, text, flags=re.IGNORECASE)


def _whole(word: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", word[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", word[-1]) else ""
    return f"{before}({re.escape(word)}){after}"


def readable(text: str) -> str:
    """A text with tokens of words in it, or with the last of them, as a person writes it."""
    return re.sub(r"<\|\+(\S+?)\|>(?:_\d+)?(?:\s*<\|\+\1\|>_\d+)*", r"\1", text)


# Whether they fit -------------------------------------------------------------------------------------------------


def check_embeddings(
    embeddings: Embeddings, title: str, encoders: Sequence[str], parts: Sequence[Part], chunks: int = 1
) -> None:
    """Raise ModelError for embeddings that do not fit a model.

    `title`: what people call the model's family. `encoders`: which of its parts take new words; none do in most.
    `chunks`: as how many chunks each text is encoded.
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
        _refuse_count(path, [found[name].shape for name in tensors.values()], _room(known, encoders) * chunks)
        for name in tensors.values():
            _refuse_numbers(path, found[name])
        if _is_known(word, known["tokenizer"]):
            raise ModelError(f"{KEY}: the model knows the word {word!r} already; name another with WORD={path}")


def _room(known: Mapping[str, Part], encoders: Sequence[str]) -> int:
    """How many tokens of a text the encoders read at once."""
    return min(int(settings(known[one]).get("max_position_embeddings", _TOKENS)) for one in encoders) - _MARKS


def _refuse_count(path: Path, shapes: Sequence[Sequence[int]], room: int) -> None:
    counts = [shape[0] if len(shape) > 1 else 1 for shape in shapes]
    if len({*counts}) > 1:
        said = f"has {' and '.join(map(str, counts))} vectors for the text encoders, which must be as many"
        raise ModelError(f"{KEY}={path} {said}: get or train it again")
    if not counts[0]:
        raise ModelError(f"{KEY}={path} has no vectors: get or train it again")
    if counts[0] > room:
        said = f"has {counts[0]} vectors, and a text has {room} tokens"
        raise ModelError(f"{KEY}={path} {said}: use one with fewer, or more model.text_chunks")


def _refuse_numbers(path: Path, tensor: Tensor) -> None:
    """Raise ModelError where numbers are infinite or none: those have all bits of their exponents set."""
    if tensor.dtype not in _EXPONENTS:
        raise ModelError(f"{KEY}={path} has numbers of {tensor.dtype}; convert it to F32 or F16")
    form, exponent = _EXPONENTS[tensor.dtype]
    with path.open("rb") as file:
        file.seek(tensor.start)
        data = file.read(tensor.end - tensor.start)
    numbers = struct.unpack(f"<{len(data) // struct.calcsize(form)}{form}", data)
    if any(number & exponent == exponent for number in numbers):
        raise ModelError(f"{KEY}={path} has values that are infinite or not a number: get or train it again")


def _is_known(word: str, tokenizer: Part) -> bool:
    """Whether a word is one token of the model already. CLIP's tokenizer marks the ends of words, and of no marks."""
    if "vocab.json" in tokenizer.files:
        vocabulary = settings(tokenizer, "vocab.json")
    else:
        model = settings(tokenizer, "tokenizer.json").get("model")
        vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
    written = "".join(map(_letter, word.encode()))
    return f"{written}{_END}" in vocabulary or (word.startswith("<|") and word in vocabulary)


def _letter(byte: int) -> str:
    """The character that stands for a byte in such vocabularies (github.com/openai/CLIP, simple_tokenizer.py)."""
    is_plain = [chr(one).isprintable() and one not in (0x20, 0xA0, 0xAD) for one in range(256)]
    return chr(byte) if is_plain[byte] else chr(256 + is_plain[:byte].count(False))
