"""Z-Image keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from transformers import Qwen3Config, Qwen3Model

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestZImage(Contract):
    family = FAMILIES["ZImagePipeline"]
    guided = (0.5, 3.5, 6.0)

    @staticmethod
    def build():
        transformer = diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
            axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
        ).eval()  # fmt: skip
        vae = tiny.kl_vae(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159)
        return diffusers.ZImagePipeline(
            scheduler=tiny.flow(shift=3.0), vae=vae,
            text_encoder=Qwen3Model(tiny.qwen_config(Qwen3Config)).eval(), tokenizer=tiny.qwen_tokenizer(),
            transformer=transformer,
        )  # fmt: skip
