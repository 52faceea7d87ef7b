"""What a model takes at one size, estimated from the headers of its files, without torch."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchgen.engine import KEPT_TEXTS
from batchgen.machine.dtype import VALUE_BYTES
from batchgen.memory.figures import LATENT_PX, Figures, Weights
from batchgen.memory.streaming_costs import pack, pack_evenly
from batchgen.models.families.base import Family
from batchgen.models.find import ModelFiles, place_px, vae_wants_fp32
from batchgen.models.parts import tensors, weight_files

# How many maps of the UNet's first width are alive at once for each row: more if its first blocks have attention
# (measured with Stable Diffusion 1.5: 18) than if they have none (SDXL: 15). And how many of the VAE's second width.
_UNET_MAPS = {True: 19.0, False: 16.0}
# In bf16 a convolution takes one map more (Z-Image at 1024x1024 on an H100).
_VAE_MAPS = {"fp32": 3.6, "fp16": 3.6, "bf16": 4.7}
# For each pixel, where a VAE has no such widths (measured, and a fifth more).
_VAE_VALUES = {"AutoencoderKLQwenImage": 2075.0, "AutoencoderDC": 1040.0}
_ENCODER_MAPS = 3
_ENCODE_BYTES = 64 << 20
_WORKSPACE_BYTES = 64 << 20
_USED_SHARE = 0.1
# How the configurations of denoisers call the width of encoded texts.
_TEXT_WIDTHS = ("joint_attention_dim", "cross_attention_dim", "cap_feat_dim", "caption_channels")
_VAE_FLOP_PER_PIXEL = 9.6e6
# The times of an imagined card: how much it computes in a second in 16 bits, how long a pass takes at least, and how
# fast weights are copied to it. A UNet's weights are used at a tenth of the latent's places on average, because most of
# them sit where the latent is small.
_FLOP_PER_S = 30e12
_PASS_S = 0.02
# What a call of the VAE takes on any card beside its computing (SD 1.5 at 512x512 on an H100: 22.8 ms for one image,
# 122 ms for eight).
_DECODE_S = 0.008
_COPIED_BYTES_PER_S = 12e9
# A UNet's pass reaches this share of the speed at which a card multiplies large matrices (SD 1.5 on an H100: 0.35).
_FLOP_SHARE = 0.35


def estimate(model: ModelFiles, dtype: str, width: int, height: int) -> Figures:
    """The figures as far as the files of a model in the diffusers layout tell them, with an imagined card's times.

    A safety checker counts with the VAE. Raises OSError, ValueError and ModelError.
    """
    family = model.family
    layers = _layers(model, family.denoiser)
    weights = _weights(model, family, dtype, layers)
    config, vae = _config(model.folder, family.denoiser), _config(model.folder, "vae")
    size, pixels = VALUE_BYTES[dtype], width * height
    # A weight of two bytes takes two operations. In fp32 a weight has twice the bytes and takes twice the time.
    if family.convolutional:
        places = pixels // LATENT_PX**2
        maps = _UNET_MAPS["Attn" in config["down_block_types"][0]]
        pass_bytes = places * config["block_out_channels"][0] * maps * size
        row_s = weights.unet_bytes * places * _USED_SHARE / _FLOP_PER_S
        groups = pack(layers, size, len(config["block_out_channels"]), places)
    else:
        tokens = pixels // (family.patch * place_px(vae)) ** 2 + family.text_tokens
        pass_bytes = tokens * _width(config) * family.maps * size
        row_s = weights.unet_bytes * tokens / _FLOP_PER_S
        groups = pack_evenly(layers, size)
    texts_bytes = KEPT_TEXTS * family.text_tokens * _text_width(config) * size
    decoded_s = pixels * _VAE_FLOP_PER_PIXEL / _FLOP_PER_S * weights.vae_value_bytes / 2
    return Figures(
        weights=weights,
        workspace_bytes=_WORKSPACE_BYTES + texts_bytes,
        encode_bytes=_encode_bytes(model, family, size),
        pass_bytes=((1, pass_bytes),),
        pass_s=((1, _PASS_S + row_s), (64, _PASS_S + 64 * row_s)),
        decode_bytes=((1, _decoded_values(vae, dtype) * weights.vae_value_bytes),),
        decode_s=((pixels, tuple((count, _DECODE_S + count * decoded_s) for count in (1, 32))),),
        copied_bytes_per_s=_COPIED_BYTES_PER_S,
        stream_groups=groups,
        measured=False,
    )


def _width(config: dict[str, Any]) -> int:
    # The width of a transformer's tokens
    if "num_attention_heads" in config:
        return int(config["num_attention_heads"] * config["attention_head_dim"])
    return int(config["dim"])


def _text_width(config: dict[str, Any]) -> int:
    # How many numbers an encoded text has for each of its tokens, by what the denoiser expects
    found = [config[name] for name in _TEXT_WIDTHS if isinstance(config.get(name), int)]
    return int(found[0]) if found else 0


def _decoded_values(vae: dict[str, Any], dtype: str) -> float:
    # How many numbers for each pixel of an image are alive at once while the VAE decodes
    kind = vae.get("_class_name", "")
    return _VAE_VALUES[kind] if kind in _VAE_VALUES else vae["block_out_channels"][1] * _VAE_MAPS[dtype]


def _encode_bytes(model: ModelFiles, family: Family, size: int) -> int:
    # What the widest layer of the largest text encoder makes of the texts that are encoded at once; a language model
    # also says how likely each word of its table comes next.
    most = 0
    for name in family.encoders:
        if not (model.folder / name / "config.json").is_file():
            continue
        config = _config(model.folder, name)
        config = config.get("text_config", {}) | config
        inner = _ENCODER_MAPS * (config.get("d_ff") or config.get("intermediate_size") or 0)
        kind = str((config.get("architectures") or [""])[0])
        words = config.get("vocab_size", 0) if kind.endswith(("ForCausalLM", "ForConditionalGeneration")) else 0
        most = max(most, family.text_rows * family.text_tokens * max(inner, words) * size)
    return max(_ENCODE_BYTES, int(most))


def at_speed(guess: Figures, flop_per_s: float | None, copied_bytes_per_s: float) -> Figures:
    """An estimate with the times of a card that multiplies matrices at this speed; None if its speed is not known."""
    guess = replace(guess, copied_bytes_per_s=copied_bytes_per_s)
    return guess if flop_per_s is None else _slowed(guess, _FLOP_PER_S / (_FLOP_SHARE * flop_per_s))


def _weights(model: ModelFiles, family: Family, dtype: str, denoiser_layers: dict[str, int]) -> Weights:
    size = vae_size = VALUE_BYTES[dtype]
    if dtype == "fp16" and vae_wants_fp32(family, _config(model.folder, "vae")):
        vae_size = VALUE_BYTES["fp32"]
    texts = [_layers(model, name) for name in family.encoders if (model.folder / name).is_dir()]
    text = [count * size for layers in texts for count in layers.values()]
    denoiser = [count * size for count in denoiser_layers.values()]
    vae_bytes = sum(_layers(model, "vae").values()) * vae_size
    vae_bytes += sum(_layers(model, "safety_checker").values()) * size if model.safety_checker else 0
    return Weights(sum(text), sum(denoiser), vae_bytes, max(text), max(denoiser), len(denoiser), vae_size)


def _config(folder: Path, name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / name / "config.json").read_bytes())
    return config


def _layers(model: ModelFiles, name: str) -> dict[str, int]:
    # {layer: its number of weights}
    found: dict[str, int] = {}
    for path in weight_files(model.folder, name, model.variant).values():
        for tensor, shape in tensors(path).items() if path.suffix == ".safetensors" else ():
            layer = tensor.rpartition(".")[0]
            found[layer] = found.get(layer, 0) + math.prod(shape)
    return found


def _slowed(guess: Figures, ratio: float) -> Figures:
    return replace(
        guess,
        pass_s=tuple((rows, max(_PASS_S, seconds * ratio)) for rows, seconds in guess.pass_s),
        decode_s=tuple(
            (pixels, tuple((count, _DECODE_S + (seconds - _DECODE_S) * ratio) for count, seconds in series))
            for pixels, series in guess.decode_s
        ),
    )
