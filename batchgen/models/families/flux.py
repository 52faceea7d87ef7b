"""FLUX.1: dev, Krea-dev and schnell."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import NEVER, Family, Text
from batchgen.models.families.scales import embedded

if TYPE_CHECKING:
    import torch

_TOKENS = {True: 512, False: 256}  # by whether the scale is an input; schnell has none and was trained with 256


class Flux(Family):
    """FLUX.1: T5 of fixed length without a mask beside a pooled CLIP, packed latents, a scale that is an input."""

    title = "FLUX.1"
    pipeline = "FluxPipeline"
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    fold = 2
    guided_above = NEVER
    doubled = False
    maps = 18.0
    returned = ("prompt_embeds", "pooled_prompt_embeds", None)

    def read_by(self, denoiser: Mapping[str, Any]) -> tuple[str, int | None]:
        """T5 reads them all but its mark at the end."""
        return "tokenizer_2", _TOKENS[bool(denoiser.get("guidance_embeds"))] - 1

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode texts at the model's own length: as nothing is masked, another length is another picture."""
        tokens = _TOKENS[bool(pipe.transformer.config.guidance_embeds)]
        made, pooled, _ = pipe.encode_prompt(prompt=list(texts), device=device, max_sequence_length=tokens)
        rows = zip(made, pooled, strict=True)
        return [{"prompt_embeds": one.clone(), "pooled_prompt_embeds": pool.clone()} for one, pool in rows]

    def guidance(
        self, pipe: Any, scales: Sequence[float], device: "torch.device"
    ) -> tuple[dict[str, Any], AbstractContextManager[None]]:
        """One number for the call, in place of which the transformer gets that of each row; schnell heeds none."""
        heeded = pipe.transformer.config.guidance_embeds
        return {"guidance_scale": scales[0]}, embedded(pipe.transformer, scales) if heeded else nullcontext()


FAMILY = Flux()
