"""Stable Diffusion 1.x and 2.x."""

from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family

if TYPE_CHECKING:
    import torch


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x: a UNet and one CLIP, guidance in doubled rows, any scheduler of the k-family."""

    title = "Stable Diffusion 1.x and 2.x"
    pipeline = "StableDiffusionPipeline"
    denoiser = "unet"
    inverted = ("text_encoder",)
    half = "fp16"
    convolutional = True
    patch = 1
    text_rows = 8
    text_tokens = 77
    returned = ("prompt_embeds", None)
    encoding = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Divide by the VAE's factor alone."""
        return latents / float(vae.config["scaling_factor"])


FAMILY = StableDiffusion()
