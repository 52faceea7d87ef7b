"""Stable Diffusion 1.x and 2.x."""

from typing import TYPE_CHECKING, Any

from batchgen.models.families.clip import ClipFamily

if TYPE_CHECKING:
    import torch


class StableDiffusion(ClipFamily):
    """Stable Diffusion 1.x and 2.x: a UNet and one CLIP, guidance in doubled rows, any scheduler of the k-family."""

    title = "Stable Diffusion 1.x and 2.x"
    pipeline = "StableDiffusionPipeline"
    inverted = ("text_encoder",)
    returned = ("prompt_embeds", None)

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Divide by the VAE's factor alone."""
        return latents / float(vae.config["scaling_factor"])


FAMILY = StableDiffusion()
