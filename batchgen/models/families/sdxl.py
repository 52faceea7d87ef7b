"""Stable Diffusion XL, its fine-tunes, and SDXL Turbo."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family, Pair

if TYPE_CHECKING:
    import torch


class StableDiffusionXL(Family):
    """Stable Diffusion XL: a UNet, two CLIPs with a pooled text, and zeros where there is no negative prompt."""

    title = "Stable Diffusion XL"
    pipeline = "StableDiffusionXLPipeline"
    denoiser = "unet"
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    inverted = encoders
    half = "fp16"
    convolutional = True
    upcasts_vae = True
    patch = 1
    text_rows = 8
    text_tokens = 77
    returned = ("prompt_embeds", None, "pooled_prompt_embeds", None)
    encoding = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}

    def conditions(self, pipe: Any, rows: Sequence[Pair]) -> dict[str, Any]:
        """Rows without a negative prompt have zeros, as the model was trained, if its index says so."""
        if pipe.config.get("force_zeros_for_empty_prompt", False):
            rows = [row if row.said or row.negative is None else _unsaid(row) for row in rows]
        return super().conditions(pipe, rows)

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Divide by the VAE's factor; some fine-tunes have a mean and a deviation, too."""
        import torch

        factor, names = float(vae.config["scaling_factor"]), ("latents_mean", "latents_std")
        if None in (given := [vae.config.get(name) for name in names]):
            return latents / factor
        mean, std = (torch.tensor(one).view(1, -1, 1, 1).to(latents) for one in given)
        return latents * std / factor + mean


def _unsaid(row: Pair) -> Pair:
    import torch

    assert row.negative is not None
    return replace(row, negative={name: torch.zeros_like(one) for name, one in row.negative.items()})


FAMILY = StableDiffusionXL()
