"""FLUX.1 keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import dataclasses

import diffusers
import torch
from safetensors.torch import save_file

from batchgen.models.families import FAMILIES
from batchgen.models.lora import digest
from batchgen.types import Lora
from tests.models.families import tiny
from tests.models.families.contract import Contract, denoised, near


class TestFlux(Contract):
    family = FAMILIES["FluxPipeline"]

    @staticmethod
    def build():
        return flux(guidance_embeds=True)

    def test_a_lora_of_kohya_changes_the_picture_as_diffusers_own_loading_does(self, engine, folder, pipe, tmp_path):
        row, tensors = self.row(0, folder), {}
        noise = torch.Generator().manual_seed(3)
        layers = {
            "lora_unet_double_blocks_0_img_attn_qkv": (96, 32), "lora_unet_double_blocks_0_txt_attn_qkv": (96, 32),
            "lora_unet_double_blocks_0_img_attn_proj": (32, 32), "lora_unet_double_blocks_0_img_mlp_0": (128, 32),
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
            "lora_te1_text_model_encoder_layers_0_self_attn_out_proj": (32, 32),
        }  # fmt: skip
        for name, (rows, columns) in layers.items():
            tensors[f"{name}.lora_down.weight"] = torch.randn(2, columns, generator=noise) / 6
            tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 2, generator=noise) / 2
            tensors[f"{name}.alpha"] = torch.tensor(3.0)
        path = tmp_path / "a.safetensors"
        save_file(tensors, path)
        plain = denoised(engine, [row])[0]
        pipe.load_lora_weights(str(path))
        [reference] = self.family.unpack(pipe, self.reference(pipe, row)[0], row.width, row.height)
        pipe.unload_lora_weights()
        merged = dataclasses.replace(row, lora=(Lora(str(path), 1.0, digest(path)),))
        assert near(denoised(engine, [merged])[0], reference) and not near(plain, reference)


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
