"""Qwen-Image keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestQwenImage(Contract):
    family = FAMILIES["QwenImagePipeline"]
    scale_word = "true_cfg_scale"

    @staticmethod
    def build():
        transformer = diffusers.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, axes_dims_rope=(8, 4, 4),
        ).eval()  # fmt: skip
        vae = diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 2.0, 0.7, 1.0],
        ).eval()  # fmt: skip
        text = {
            "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        }  # fmt: skip
        vision = {
            "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        }  # fmt: skip
        encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
        return diffusers.QwenImagePipeline(
            scheduler=tiny.flow(use_dynamic_shifting=True),
            vae=vae,
            text_encoder=encoder.eval(),
            tokenizer=tiny.qwen_tokenizer(),
            transformer=transformer,
        )

    def negative(self, pipe, row):
        return {"negative_prompt": row.negative_prompt} if row.is_guided else {}
