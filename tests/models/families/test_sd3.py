"""Stable Diffusion 3 and 3.5 keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from transformers import CLIPTextModelWithProjection

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestStableDiffusion3(Contract):
    family = FAMILIES["StableDiffusion3Pipeline"]

    @staticmethod
    def build():
        return sd3(t5=True)


class TestWithoutT5(TestStableDiffusion3):
    """The largest of its encoders may be left out."""

    @staticmethod
    def build():
        return sd3(t5=False)

    def test_text_beyond_what_the_model_reads_is_told_and_not_drawn(self, engine, folder):
        assert engine.encode([self.row(0, folder, prompt="horse " * 90)])["horse " * 90].cut


def sd3(t5):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, out_channels=16, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=32,
    ).eval()  # fmt: skip
    vae = tiny.kl_vae(
        latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=tiny.flow(shift=3.0), vae=vae,
        text_encoder=tiny.clip(CLIPTextModelWithProjection), tokenizer=tiny.clip_tokenizer(),
        text_encoder_2=tiny.clip(CLIPTextModelWithProjection, "gelu"), tokenizer_2=tiny.clip_tokenizer(),
        text_encoder_3=tiny.t5(64) if t5 else None, tokenizer_3=tiny.t5_tokenizer() if t5 else None,
    )  # fmt: skip
