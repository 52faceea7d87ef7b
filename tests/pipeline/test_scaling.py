"""Latents are scaled back as each family's pipeline does it."""

import pytest

pytest.importorskip("torch")

import torch

from batchgen.models.find import FAMILIES
from batchgen.pipeline.scaling import unscale

SD, SDXL = FAMILIES["StableDiffusionPipeline"], FAMILIES["StableDiffusionXLPipeline"]
MEAN_STD = {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]}


def test_the_factor_divides_and_only_sdxl_goes_by_mean_and_deviation() -> None:
    latents = torch.ones(1, 2, 4, 4)
    assert torch.equal(unscale(latents, SD, MEAN_STD), 2 * latents)
    scaled = unscale(latents, SDXL, MEAN_STD)
    assert (scaled[0, 0, 0, 0].item(), scaled[0, 1, 0, 0].item()) == (1 * 3 / 0.5 + 1, 1 * 4 / 0.5 + 2)
    assert torch.equal(unscale(latents, SDXL, {"scaling_factor": 0.5, "latents_mean": None}), 2 * latents)


def test_a_missing_factor_is_an_error() -> None:
    with pytest.raises((KeyError, TypeError)):
        unscale(torch.ones(1, 2, 4, 4), SD, {"scaling_factor": None})
