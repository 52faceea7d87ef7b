"""Prompts that are longer than the model can read: the tokenizer cuts them, and what is beyond is not drawn."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchgen.models.embeddings import expanded, pieces, readable, vectors
from batchgen.models.find import ModelFiles

_USUAL_TOKENS = 77
_MARKS = 2  # the start and the end of a text are tokens too
_SHOWN_CHARS = 40
# As in CLIP's own tokenizer.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def may_be_cut(text: str) -> bool:
    """Whether a text has more bytes than the usual tokenizer has tokens: fewer bytes are never cut."""
    return len(text.encode(errors="replace")) > _USUAL_TOKENS - _MARKS


def cut_warning(model: ModelFiles, texts: Sequence[str]) -> str | None:
    """What to say where the model's tokenizer cuts some of these texts; None if it cuts none, or cannot be read."""
    try:
        family = model.family
        name, most = family.read_by(json.loads((model.folder / family.denoiser / "config.json").read_bytes()))
        there = (model.folder / name).is_dir()
        tokenizer, usual = _load(model.folder / (name if there else "tokenizer"))
        room = (usual - _MARKS) * family.texts.text_chunks if most is None or not there else most
        counts = {word: vectors(path) for word, path in model.embeddings}
        tokenizer.add_tokens([piece for word, number in counts.items() for piece in pieces(word, number)])
        texts = [expanded("".join(piece for piece, _ in family.pieces(text)), counts) for text in texts]
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False) if texts else []
    except Exception:  # the tokenizer's own library raises plain exceptions; a worker says what is wrong
        return None
    cut = [(text, one.offsets[room][0]) for text, one in zip(texts, encoded, strict=True) if len(one.ids) > room]
    if not cut:
        return None
    text, place = cut[0]
    rest = readable(text[place:])
    beyond = rest[:_SHOWN_CHARS] + ("..." if len(rest) > _SHOWN_CHARS else "")
    who = "1 prompt is" if len(cut) == 1 else f"{len(cut)} prompts are"
    return f"{who} longer than the {room} tokens that the model reads, and the rest is not drawn (first: {beyond!r})"


def _load(folder: Path) -> tuple[Any, int]:
    """The tokenizer, and how many tokens a text may have with its marks. Raises what `tokenizers` does, and OSError."""
    from tokenizers import Regex as Pattern
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    most = min(int(settings.get("model_max_length", _USUAL_TOKENS)), 10 * _USUAL_TOKENS)
    if (folder / "tokenizer.json").is_file():
        found = Tokenizer.from_file(str(folder / "tokenizer.json"))
        found.no_truncation()
        return found, most
    model = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt"), end_of_word_suffix="</w>", fuse_unk=False
    )
    found = Tokenizer(model)
    found.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Pattern(r"\s+"), " "), normalizers.Lowercase()]
    )
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Pattern(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return found, most
