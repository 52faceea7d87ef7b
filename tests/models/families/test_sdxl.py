"""Stable Diffusion XL keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from transformers import CLIPTextModelWithProjection

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestStableDiffusionXL(Contract):
    family = FAMILIES["StableDiffusionXLPipeline"]
    noisy = ("EulerAncestralDiscreteScheduler", {})

    def unused(self, pipe, row, encoder):
        """Where nothing negative is said, the empty text is encoded with the others, and zeros take its place."""
        if row.negative_prompt:
            return set()
        tokenizer = getattr(pipe, encoder.replace("text_encoder", "tokenizer"))
        return {tuple(tokenizer("", padding="max_length").input_ids)}

    @staticmethod
    def build():
        return diffusers.StableDiffusionXLPipeline(
            vae=tiny.kl_vae(scaling_factor=0.13025), text_encoder=tiny.clip(), tokenizer=tiny.clip_tokenizer(),
            text_encoder_2=tiny.clip(CLIPTextModelWithProjection, "gelu"), tokenizer_2=tiny.clip_tokenizer(),
            scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", **tiny.BETAS),
            force_zeros_for_empty_prompt=True, add_watermarker=False,
            unet=diffusers.UNet2DConditionModel(
                sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=64,
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
                use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 32,
            ).eval(),
        )  # fmt: skip
