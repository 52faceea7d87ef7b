"""Sana 1.5."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family, Text

if TYPE_CHECKING:
    import torch


class Sana(Family):
    """Sana: Gemma under a true mask, an instruction before the prompt but not before the negative, latents of 1/32."""

    title = "Sana"
    pipeline = "SanaPipeline"
    patch = 1
    latents_fp32 = True
    negatives_differ = True
    text_rows = 2
    text_tokens = 300
    maps = 12.0
    reads = ("tokenizer", 298)
    call = {"use_resolution_binning": False, "negative_prompt": None}

    def pieces(self, text: str) -> list[tuple[str, float]]:
        """The text as the pipeline reads it."""
        return [(text.lower().strip(), 1.0)]

    def encode(self, pipe: Any, texts: Sequence[str], role: str, device: "torch.device") -> list[Text]:
        """Encode texts, prompts after the instruction that is a default of the pipeline's call and not of this."""
        instruction = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
        made, mask, _, _ = pipe.encode_prompt(
            prompt=list(texts), device=device, do_classifier_free_guidance=False,
            complex_human_instruction=instruction if role == "prompt" else None,
        )  # fmt: skip
        return [
            {"prompt_embeds": one.clone(), "prompt_attention_mask": seen.clone()}
            for one, seen in zip(made, mask, strict=True)
        ]

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Divide by the VAE's factor alone."""
        return latents / float(vae.config["scaling_factor"])


FAMILY = Sana()
