"""Stable Diffusion XL, its fine-tunes, and SDXL Turbo."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Pair
from batchgen.models.families.clip import ClipFamily
from batchgen.models.families.scales import sizes_in_order
from batchgen.models.families.texts import SIZES

if TYPE_CHECKING:
    import torch


class StableDiffusionXL(ClipFamily):
    """Stable Diffusion XL: a UNet, two CLIPs with a pooled text, and zeros where there is no negative prompt."""

    title = "Stable Diffusion XL"
    pipeline = "StableDiffusionXLPipeline"
    encoders = inverted = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    upcasts_vae = True
    returned = ("prompt_embeds", None, "pooled_prompt_embeds", None)
    heeds = (*ClipFamily.heeds, *SIZES)
    spared = 1
    normalized = False

    def conditions(self, pipe: Any, rows: Sequence[Pair]) -> dict[str, Any]:
        """Rows without a negative prompt have zeros, as the model was trained, if its index says so."""
        if pipe.config.get("force_zeros_for_empty_prompt", False):
            rows = [row if row.said else _unsaid(row) for row in rows]
        return super().conditions(pipe, rows)

    def guidance(
        self, pipe: Any, scales: Sequence[float], device: "torch.device"
    ) -> tuple[dict[str, Any], AbstractContextManager[None]]:
        """The usual keywords, and a context that gives each row its sizes where negative prompts have others."""
        keywords, hooked = super().guidance(pipe, scales, device)
        differ = "negative_target_size" in self.call and keywords["guidance_scale"] > 1.0
        return keywords, sizes_in_order(pipe.unet) if differ else hooked

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Divide by the VAE's factor; some fine-tunes have a mean and a deviation, too."""
        import torch

        factor, names = float(vae.config["scaling_factor"]), ("latents_mean", "latents_std")
        if None in (given := [vae.config.get(name) for name in names]):
            return latents / factor
        mean, std = (torch.tensor(one).view(1, -1, 1, 1).to(latents) for one in given)
        return latents * std / factor + mean


def _unsaid(row: Pair) -> Pair:
    negative = row.negative
    return replace(row, negative=negative and {name: one.new_zeros(one.shape) for name, one in negative.items()})


FAMILY = StableDiffusionXL()
