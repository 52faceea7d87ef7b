"""The vectors of textual inversions, put into a pipeline's tokenizers and text encoders."""

import functools
from typing import Any

from batchgen.models.embeddings import Embeddings, expanded, tensors_of, token, vectors


def add_words(pipe: Any, embeddings: Embeddings) -> None:
    """Teach a pipeline words; from then on its `encode_prompt` takes them, in whatever case, for all their vectors.

    diffusers adds the tokens, under names that no text has, so that `expanded` alone says where a word is. diffusers
    would find it in longer words, too, and one of several vectors in lower case only.
    """
    from safetensors.torch import load_file

    for word, path in embeddings:
        state = load_file(path)
        for encoder, name in tensors_of(path).items():
            tokenizer = getattr(pipe, encoder.replace("text_encoder", "tokenizer"))
            # A tensor of (vectors, numbers), or of one vector
            pipe.load_textual_inversion(
                state[name], token=token(word), text_encoder=getattr(pipe, encoder), tokenizer=tokenizer
            )
    if embeddings:
        counts = {word: vectors(path) for word, path in embeddings}
        pipe.maybe_convert_prompt = functools.partial(_converted, counts)


def _converted(counts: dict[str, int], prompt: Any, tokenizer: Any) -> Any:
    return [expanded(one, counts) for one in prompt] if isinstance(prompt, list) else expanded(prompt, counts)
