"""FLUX.1 keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestFlux(Contract):
    family = FAMILIES["FluxPipeline"]

    @staticmethod
    def build():
        return flux(guidance_embeds=True)


class TestSchnell(TestFlux):
    """The model without an embedded scale, which reads half as many tokens."""

    call = {"max_sequence_length": 256}

    @staticmethod
    def build():
        return flux(guidance_embeds=False)

    def heeds_scales(self, engine):
        return False


def flux(guidance_embeds):
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance_embeds,
    ).eval()  # fmt: skip
    vae = tiny.kl_vae(
        latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False
    )
    return diffusers.FluxPipeline(
        scheduler=tiny.flow(use_dynamic_shifting=guidance_embeds), vae=vae, text_encoder=tiny.clip(),
        tokenizer=tiny.clip_tokenizer(), text_encoder_2=tiny.t5(), tokenizer_2=tiny.t5_tokenizer(),
        transformer=transformer,
    )  # fmt: skip
