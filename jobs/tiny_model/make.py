"""Make the small Stable Diffusion that the package carries, with random weights: python jobs/tiny_model/make.py

The same architecture as Stable Diffusion 1.5, at a size that a laptop's CPU runs: CLIP text encoder and tokenizer,
UNet2DConditionModel, AutoencoderKL, DDIM. Its pictures are noise until it is trained.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
SIZE_PX = 128
TEXT_DIM = 128
VOCABULARY = 2048
MARKS = ["<|startoftext|>", "<|endoftext|>"]


def make_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE, words end in </w>) whose merges were learnt from `texts`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([text.lower() for text in texts], trainer)
    merges = [tuple(pair) for pair in _merges(bpe)]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges), *MARKS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _merges(bpe: Tokenizer) -> list[Any]:
    merges: list[Any] = json.loads(bpe.to_str())["model"]["merges"]
    return merges


def make_pipeline(texts: list[str], seed: int) -> StableDiffusionPipeline:
    """The pipeline, its weights random and the same for the same seed."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(texts)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_DIM, intermediate_size=4 * TEXT_DIM, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=77, projection_dim=TEXT_DIM,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE_PX // 8, block_out_channels=(48, 96, 128), layers_per_block=1, norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_DIM, attention_head_dim=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), layers_per_block=1, norm_num_groups=8, sample_size=SIZE_PX,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def main() -> None:
    """Write the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "batchgen" / "models" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    texts = [line for path in sorted((ROOT / "jobs").glob("*.txt")) for line in path.read_text().splitlines()]
    pipe = make_pipeline(texts, options.seed)
    pipe.to(torch.float16).save_pretrained(options.out, safe_serialization=True)
    parts = {"text_encoder": pipe.text_encoder, "unet": pipe.unet, "vae": pipe.vae}
    for name, part in parts.items():
        print(f"{name}: {sum(weights.numel() for weights in part.parameters()):,} parameters")
    print(f"{options.out}: {sum(path.stat().st_size for path in options.out.rglob('*') if path.is_file()):,} bytes")


if __name__ == "__main__":
    main()
