"""FLUX.2 klein."""

from typing import TYPE_CHECKING, Any

from batchgen.models.families.base import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


class Flux2Klein(Family):
    """FLUX.2 klein: Qwen3 of fixed length without a mask, latents of 128 channels that come back scaled."""

    title = "FLUX.2 klein"
    pipeline = "Flux2KleinPipeline"
    doubled = False
    distilled_if = "is_distilled"
    text_rows = 2
    maps = 22.5
    reads = ("tokenizer", 509)  # and three tokens before the text
    returned = ("prompt_embeds", None)

    def noise(self, pipe: Any, generators: "Sequence[torch.Generator]", width: int, height: int) -> "torch.Tensor":
        """Noise of all channels of a token, which has 2 x 2 places: (rows, channels, height / 16, width / 16)."""
        import torch

        edge = self.patch * pipe.vae_scale_factor
        shape = (pipe.transformer.config.in_channels, height // edge, width // edge)
        return torch.stack([torch.randn(shape, generator=one, dtype=torch.float32) for one in generators])

    def unscale(self, vae: Any, latents: "torch.Tensor") -> "torch.Tensor":
        """Nothing, because the pipeline did it."""
        return latents


FAMILY = Flux2Klein()
