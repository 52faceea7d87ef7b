"""Latents are scaled before the VAE decodes them, in the way of each family's pipeline."""

from collections.abc import Mapping
from typing import Any

import torch

from batchgen.models.find import Family


def unscale(latents: torch.Tensor, family: Family, config: Mapping[str, Any]) -> torch.Tensor:
    """Undo the VAE's scaling of latents (rows, channels, height / 8, width / 8), as diffusers 0.42.1 does.

    `config` is the VAE's.
    """
    factor = float(config["scaling_factor"])
    if family.vae_mean_std and None not in (config.get("latents_mean"), config.get("latents_std")):
        mean, std = (
            torch.tensor(config[name]).view(1, -1, 1, 1).to(latents) for name in ("latents_mean", "latents_std")
        )
        return latents * std / factor + mean
    return latents / factor
