"""Stable Diffusion 1.x keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestStableDiffusion(Contract):
    family = FAMILIES["StableDiffusionPipeline"]
    noisy = ("EulerAncestralDiscreteScheduler", {})

    @staticmethod
    def build():
        return diffusers.StableDiffusionPipeline(
            vae=tiny.kl_vae(), text_encoder=tiny.clip(), tokenizer=tiny.clip_tokenizer(), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
            scheduler=diffusers.DDIMScheduler(clip_sample=False, **tiny.BETAS),
            unet=diffusers.UNet2DConditionModel(
                sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=32,
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4,
            ).eval(),
        )  # fmt: skip
