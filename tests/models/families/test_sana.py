"""Sana keeps the contract of families."""

import pytest

pytest.importorskip("torch")

import diffusers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

from batchgen.models.families import FAMILIES
from tests.models.families import tiny
from tests.models.families.contract import Contract


class TestSana(Contract):
    family = FAMILIES["SanaPipeline"]
    noisy = ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"})
    call = {"use_resolution_binning": False}

    @staticmethod
    def build():
        words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
        words |= {one: place + 4 for place, one in enumerate(tiny.LETTERS)}
        plain = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
        plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=plain, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
            padding_side="right",
        )  # fmt: skip
        encoder = Gemma2Model(
            Gemma2Config(
                head_dim=16, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
                num_key_value_heads=2, vocab_size=len(words), query_pre_attn_scalar=16, sliding_window=64,
                pad_token_id=0, eos_token_id=1, bos_token_id=2,
            )
        )  # fmt: skip
        transformer = diffusers.SanaTransformer2DModel(
            patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
            num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8,
            sample_size=32,
        ).eval()  # fmt: skip
        vae = diffusers.AutoencoderDC(
            in_channels=3, latent_channels=4, attention_head_dim=2, encoder_layers_per_block=(1,) * 6,
            encoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",), encoder_block_out_channels=(8,) * 6,
            decoder_block_types=("ResBlock",) * 5 + ("EfficientViTBlock",), decoder_block_out_channels=(8,) * 6,
            encoder_qkv_multiscales=((),) * 5 + ((5,),), decoder_qkv_multiscales=((),) * 5 + ((5,),),
            decoder_layers_per_block=(1,) * 6, downsample_block_type="conv", upsample_block_type="interpolate",
            decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41407,
        ).eval()  # fmt: skip
        scheduler = diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        return diffusers.SanaPipeline(
            tokenizer=tokenizer, text_encoder=encoder.eval(), vae=vae, transformer=transformer, scheduler=scheduler
        )
