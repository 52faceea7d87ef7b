"""The parts of the tiny Stable Diffusion, either new or loaded, and its folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIZE_PX = 128
FACTOR = 8
LATENT_CHANNELS = 8
_TEXT_DIM = 192
_VOCABULARY = 1400
_MARKS = ["<|startoftext|>", "<|endoftext|>"]


def new_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE, words end in </w>) whose merges are learnt from `texts`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator((text.lower() for text in texts), trainer)
    merges: list[Any] = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces[: _VOCABULARY - 2], *_MARKS]))}
    known = [pair for pair in merges if "".join(pair) in vocabulary]
    return CLIPTokenizer(vocab=vocabulary, merges=known, model_max_length=77)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A new text encoder with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=_TEXT_DIM, intermediate_size=4 * _TEXT_DIM, num_hidden_layers=3,
            num_attention_heads=6, max_position_embeddings=77, projection_dim=_TEXT_DIM,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """A new UNet with random weights."""
    return UNet2DConditionModel(
        sample_size=SIZE_PX // FACTOR, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 128, 128), layers_per_block=1, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=_TEXT_DIM, attention_head_dim=4,
    )  # fmt: skip


def new_vae() -> AutoencoderKL:
    """A new autoencoder with random weights. It has no attention, so what it draws depends only on what is near."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 96), layers_per_block=1, norm_num_groups=16, sample_size=SIZE_PX,
        latent_channels=LATENT_CHANNELS, mid_block_add_attention=False, scaling_factor=1.0,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def new_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR, so that an image's mean is not fixed by its noise (arXiv:2305.08891)."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
        steps_offset=1,
    )  # fmt: skip


def save_pipeline(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel, folder: Path
) -> None:
    """Write an ordinary fp16 StableDiffusionPipeline folder."""
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=new_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    config = folder / "vae" / "config.json"
    facts = json.loads(config.read_bytes())
    kept = {name: value for name, value in facts.items() if name not in ("_name_or_path", "local_files_only")}
    config.write_text(json.dumps(kept, indent=2) + "\n")  # the path that it was read from must not be in it
