"""A model folder with the shapes of Stable Diffusion 1.5 or SDXL base and random weights, where no real one can be had.

Its speed and its memory are those of the real one; its pictures are noise. The same seed gives other weights on a
GPU than on a CPU. Sentences take about twice the tokens that the real merges make of them.

python -m tests.bench.full_size sd15|sdxl FOLDER [--dtype fp16|fp32] [--seed 0]
"""

import argparse
import math
import time
from itertools import islice, product
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
VOCABULARY = 49_408
START, END = "<|startoftext|>", "<|endoftext|>"
_COMMONEST_FIRST = "etaoinshrdlcumwfgypbvkjxqz"

_UNET = {
    "in_channels": 4, "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "layers_per_block": 2, "downsample_padding": 1, "mid_block_scale_factor": 1, "act_fn": "silu",
    "norm_num_groups": 32, "norm_eps": 1e-5,
}  # fmt: skip
_VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2, "act_fn": "silu", "norm_num_groups": 32,
}  # fmt: skip
# These ids of marks are wrong, as in the public ones; with an end of 2 the pooled token is that of the highest id.
_TEXT = {
    "vocab_size": VOCABULARY, "max_position_embeddings": 77, "layer_norm_eps": 1e-5, "attention_dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
_CLIP_L = _TEXT | {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
_BIG_G = _TEXT | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
# A UNet's attention_head_dim is its number of heads.
CONFIGS = {
    "sd15": {
        "unet": _UNET | {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8,
            "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3), "cross_attention_dim": 768,
        },
        "vae": _VAE | {"sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": _CLIP_L,
    },
    "sdxl": {
        "unet": _UNET | {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 2048,
            "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        },
        "vae": _VAE | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": _CLIP_L,
        "text_encoder_2": _BIG_G,
    },
}  # fmt: skip
_BETAS = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "trained_betas": None, "steps_offset": 1,
}  # fmt: skip
# What a scheduler has no use for is there for others, which are made from its configuration.
_FOR_OTHERS = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
SCHEDULERS = {
    "sd15": (PNDMScheduler, _BETAS | _FOR_OTHERS),
    "sdxl": (
        EulerDiscreteScheduler,
        _BETAS | _FOR_OTHERS | {
            "interpolation_type": "linear", "prediction_type": "epsilon", "sample_max_value": 1.0,
            "timestep_spacing": "leading", "use_karras_sigmas": False,
        },
    ),
}  # fmt: skip


def component(name, config):
    """The module of that name, without memory: its tensors are on the meta device."""
    with torch.device("meta"):
        if name == "unet":
            return UNet2DConditionModel(**config)
        if name == "vae":
            return AutoencoderKL(**config)
        kind = CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel
        return kind(CLIPTextConfig(**config))


def tokenizer(pad=END):
    """One with the vocabulary's real size and marks: bytes, then the pieces that `_merges` makes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{one}</w>" for one in letters)]
    merges = list(islice(_merges(), VOCABULARY - len(pieces) - 2))
    pieces += [*(first + second for first, second in merges), START, END]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


def _merges():
    # Every two letters, then every three and so on, within a word and at its end: each grows from one made before.
    stems = list(_COMMONEST_FIRST)
    while True:
        for stem, letter in product(stems, _COMMONEST_FIRST):
            yield stem, letter
            yield stem, f"{letter}</w>"
        stems = [stem + letter for stem, letter in product(stems, _COMMONEST_FIRST)]


def _pipeline(kind, parts):
    scheduler, settings = SCHEDULERS[kind]
    parts = parts | {"scheduler": scheduler.from_config(settings), "tokenizer": tokenizer()}
    if kind == "sd15":
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    return StableDiffusionXLPipeline(
        **parts, tokenizer_2=tokenizer(pad="!"), force_zeros_for_empty_prompt=True, add_watermarker=False
    )


def make(kind, folder, dtype="fp16", seed=0, shrink=None):
    """Write the folder; `shrink` is {component: {what is to be smaller in its configuration}}, for tests."""
    folder = Path(folder)
    configs = {name: config | (shrink or {}).get(name, {}) for name, config in CONFIGS[kind].items()}
    modules = {name: component(name, config) for name, config in configs.items()}
    pipe = _pipeline(kind, modules)
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(seed)
    for name, module in modules.items():
        _fill(module, DTYPES[dtype], generator)
        module.save_pretrained(folder / name, max_shard_size="20GB")  # in one file, as the public ones are
        module.to("meta")  # frees it: one at a time is in memory
    for name, part in pipe.components.items():
        if name not in modules and part is not None:
            part.save_pretrained(folder / name)
    pipe.save_config(folder)  # last: without the index a folder is no model
    return folder


def _fill(module, dtype, generator):
    weights = {name: _weights(name, like.shape, dtype, generator) for name, like in module.named_parameters()}
    # Strict: fails if a module also saves buffers. Those it does not save are made when the folder is loaded.
    module.load_state_dict(weights, assign=True)


def _weights(name, shape, dtype, generator):
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
    noise = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    # As large as what torch's own layers begin with, so that activations stay far within fp16.
    return noise.mul_((3 * math.prod(shape[1:])) ** -0.5).cpu()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=CONFIGS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    make(options.kind, options.folder, options.dtype, options.seed)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {options.kind}, {size / 1e9:.2f} GB, {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
