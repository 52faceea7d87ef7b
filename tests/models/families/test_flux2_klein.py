"""FLUX.2 klein keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from transformers import Qwen3Config, Qwen3ForCausalLM

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestFlux2Klein(Contract):
    family = FAMILIES["Flux2KleinPipeline"]

    @staticmethod
    def build():
        return klein(is_distilled=False)

    def negative(self, pipe, row):
        if not row.is_guided or not row.negative_prompt:
            return {}
        return {"negative_prompt_embeds": pipe.encode_prompt(row.negative_prompt)[0]}


class TestDistilled(TestFlux2Klein):
    """The model that does without guidance."""

    @staticmethod
    def build():
        return klein(is_distilled=True)

    def heeds_scales(self, engine):
        return False


def klein(is_distilled):
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=96, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    return diffusers.Flux2KleinPipeline(
        scheduler=tiny.flow(use_dynamic_shifting=True), vae=vae, transformer=transformer, is_distilled=is_distilled,
        text_encoder=Qwen3ForCausalLM(tiny.qwen_config(Qwen3Config, layers=28)).eval(), tokenizer=tiny.qwen_tokenizer(),
    )  # fmt: skip
