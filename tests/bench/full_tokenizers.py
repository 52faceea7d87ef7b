"""Tokenizers of the real sizes, made here: they know every text, and their pieces are not those of the real ones.

Sentences take about twice the tokens that the real pieces make of them.
"""

import string
from itertools import islice, product

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

CLIP_VOCABULARY = 49_408
_T5_PIECES, _T5_EXTRA = 32_000, 100
_QWEN_PIECES = 151_643
START, END = "<|startoftext|>", "<|endoftext|>"
_COMMONEST_FIRST = "etaoinshrdlcumwfgypbvkjxqz"
# The marks that Qwen3 adds after its pieces, in the order of their numbers.
_QWEN_MARKS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>",
    "</think>",
)  # fmt: skip
# What Qwen3's template makes of one message of a user where it may think.
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip(pad=END):
    """CLIP's: bytes, then the pieces that merges make, within a word and at its end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{one}</w>" for one in letters)]
    grown = (merge for one, more in _grown(_COMMONEST_FIRST) for merge in ((one, more), (one, f"{more}</w>")))
    merges = list(islice(grown, CLIP_VOCABULARY - len(pieces) - 2))
    pieces += [*(first + second for first, second in merges), START, END]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


def t5():
    """T5's: characters, then pieces of words and of their beginnings, all equally likely."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -12.0)]
    seen = {piece for piece, _ in marks}
    characters = [one for one in string.printable if not one.isspace() and one not in seen]
    words = (one + more for one, more in _grown([*_COMMONEST_FIRST, "\u2581"]))
    pieces = [(one, -12.0) for one in [*characters, *islice(words, _T5_PIECES - len(marks) - len(characters))]]
    return T5Tokenizer(vocab=[*marks, *pieces], extra_ids=_T5_EXTRA, model_max_length=512)


def qwen():
    """Qwen3's: bytes, then the pieces that merges make, within a word and at its beginning; and its marks."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(islice(_grown([*_COMMONEST_FIRST, "\u0120"]), _QWEN_PIECES - len(pieces)))
    pieces += [first + second for first, second in merges]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=131_072)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_QWEN_MARKS[1:])})
    tokenizer.chat_template = _CHAT
    return tokenizer


def _grown(stems):
    # Every stem with every letter, then each of those with every letter and so on: each grows from one made before.
    while True:
        yield from product(stems, _COMMONEST_FIRST)
        stems = [stem + letter for stem, letter in product(stems, _COMMONEST_FIRST)]
