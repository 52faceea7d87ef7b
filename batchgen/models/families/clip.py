"""What the families of Stable Diffusion share: texts that CLIP encodes in chunks, with weights, and a UNet."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from batchgen.models.families.base import Family, Text
from batchgen.models.families.texts import TextOptions

if TYPE_CHECKING:
    import torch

CLIP_LAYERS = 12  # where a CLIP's config.json doesn't say how many it has
Chunk = list[tuple[int, float]]
"""The tokens of a chunk with their weights, its marks of start and end among them, without padding."""


class ClipFamily(Family):
    """A family with a UNet and one or more CLIPs, whose results stand side by side."""

    denoiser = "unet"
    half = "fp16"
    convolutional = True
    patch = 1
    text_rows = 8
    text_tokens = 77
    encoding = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    heeds: tuple[str, ...] = ("clip_skip", "text_chunks", "prompt_weights")
    normalized = True
    """Whether a text that skips layers passes the last norm all the same."""

    def using(self, texts: TextOptions) -> Self:
        """The family with these options. As in diffusers, negative prompts skip no layers."""
        family = super().using(texts)
        family.call = texts.told
        family.text_tokens = self.text_tokens * texts.text_chunks
        family.negatives_differ = texts.clip_skip is not None
        return family

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode texts: as the pipeline does, or by chunks, weights and layers where the options ask for them."""
        skip = self.texts.clip_skip if role == "prompt" else None
        if skip is None and self.texts.text_chunks == 1 and not self.texts.prompt_weights:
            return super().encode(pipe, texts, role, device)
        import torch

        hidden, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            made, pooled = self._encoded(pipe, getattr(pipe, tokenizer), getattr(pipe, encoder), texts, skip, device)
            hidden.append(made)
        found = {"prompt_embeds": torch.cat(hidden, dim=-1)}  # (texts, tokens of all chunks, width)
        if "pooled_prompt_embeds" in self.returned:
            assert pooled is not None
            found["pooled_prompt_embeds"] = pooled
        return [{name: made[row].clone() for name, made in found.items()} for row in range(len(texts))]

    def _encoded(
        self, pipe: Any, tokenizer: Any, encoder: Any, texts: Sequence[str], skip: int | None, device: "torch.device"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """What one CLIP makes of texts: (texts, tokens of all chunks, width), and what it pools of each first chunk.

        A token with a weight is moved along the line from what the empty text has in its place, as ComfyUI does it, and
        compel for weights above 1; what is pooled has no weights, as there.
        """
        import torch

        count = self.texts.text_chunks
        chunks = [one for text in texts for one in chunked(self.tokens(pipe, tokenizer, text), tokenizer, count)]
        made, pooled = self._hidden(tokenizer, encoder, chunks, skip, device)
        if any(weight != 1.0 for chunk in chunks for _, weight in chunk):
            empty, _ = self._hidden(tokenizer, encoder, chunked([], tokenizer, 1), skip, device)
            full = tokenizer.model_max_length
            weights = torch.tensor([[weight for _, weight in one] + [1.0] * (full - len(one)) for one in chunks])
            weights = weights.to(device)[:, :, None]
            moved = empty.float() + weights * (made.float() - empty.float())
            made = torch.where(weights == 1.0, made, moved.to(made.dtype))
        return made.reshape(len(texts), -1, made.shape[-1]), pooled.reshape(len(texts), count, -1)[:, 0]

    def _hidden(
        self, tokenizer: Any, encoder: Any, chunks: Sequence[Chunk], skip: int | None, device: "torch.device"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Each chunk's tokens (chunks, tokens, width), and what is pooled of it.

        It is what encode_prompt of diffusers 0.42.1 does with a text; there the last norm is not found any more in a
        CLIPTextModel of transformers 5.6 or later, so that clip_skip fails (diffusers issue 14124).
        """
        import torch

        full = tokenizer.model_max_length
        ids = [[token for token, _ in one] + [tokenizer.pad_token_id] * (full - len(one)) for one in chunks]
        seen = None
        if getattr(encoder.config, "use_attention_mask", False):
            seen = torch.tensor([[1] * len(one) + [0] * (full - len(one)) for one in chunks]).to(device)
        made = encoder(torch.tensor(ids).to(device), attention_mask=seen, output_hidden_states=True)
        if skip is None and not self.spared:
            return made[0], made.pooler_output
        layers = made.hidden_states[-(1 + self.spared + (skip or 0))]
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        return norm(layers) if self.normalized else layers, made[0] if made[0].dim() == 2 else made.pooler_output


def chunked(tokens: Sequence[tuple[int, float]], tokenizer: Any, count: int) -> list[Chunk]:
    """Exactly `count` chunks of the tokens, each between the marks of start and end; what is beyond them is cut.

    Chunks without tokens are those of the empty text, as in AUTOMATIC1111's web UI.
    """
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    start, end = (tokenizer.bos_token_id, 1.0), (tokenizer.eos_token_id, 1.0)
    return [[start, *tokens[place * room : (place + 1) * room], end] for place in range(count)]
