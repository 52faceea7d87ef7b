"""A simple prediction of a batch's peak memory, from the model's files alone. Pure, no torch."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batchgen.types import Policy

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Full-size maps of the VAE's second width that are alive at once while it decodes, with cuDNN's workspace, and maps
# of the UNet's first width for each row: both from measurements of Stable Diffusion 1.5 at 512x512.
_VAE_MAPS = 3.6
_UNET_MAPS = 27
_LATENT_PX = 8
# The part of a UNet's weights that is on the device at once.
_UNET_SHARE = {"group_offload_block": 0.25, "group_offload_leaf": 0.05, "sequential_offload": 0.05}


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model's files say: numbers of weights, and the widths that activations go by."""

    text_weights: int
    unet_weights: int
    vae_weights: int
    unet_width: int
    vae_width: int
    vae_fp32: bool


def read_footprint(folder: Path, variant: str | None) -> Footprint:
    """Of a model in the diffusers layout; only the headers of weight files are read. Raises OSError, ValueError."""
    unet = json.loads((folder / "unet" / "config.json").read_bytes())
    vae = json.loads((folder / "vae" / "config.json").read_bytes())
    return Footprint(
        text_weights=sum(_weights(folder / name, variant) for name in ("text_encoder", "text_encoder_2")),
        unet_weights=_weights(folder / "unet", variant),
        vae_weights=_weights(folder / "vae", variant),
        unet_width=unet["block_out_channels"][0],
        vae_width=vae["block_out_channels"][1],
        vae_fp32=bool(vae.get("force_upcast", False)),
    )


def _weights(folder: Path, variant: str | None) -> int:
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    marked = [path for path in files if variant and f".{variant}." in path.name]
    plain = [path for path in files if path.name.count(".") == 1]
    return sum(_weights_in(path) for path in marked or plain or files)


def _weights_in(path: Path) -> int:
    # safetensors: eight bytes of length, then that much JSON, then the data
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes: Iterable[list[int]] = (entry["shape"] for name, entry in header.items() if name != "__metadata__")
    return sum(math.prod(shape) for shape in shapes)


def predict_peak_bytes(model: Footprint, policy: Policy, width: int, height: int, guided: bool = True) -> int:
    """The most that a batch of images of `width` x `height` px allocates on the device at once."""
    size = _BYTES[policy.dtype]
    vae_size = 4 if model.vae_fp32 and policy.dtype == "fp16" else size
    text, unet, vae = model.text_weights * size, model.unet_weights * size, model.vae_weights * vae_size
    rows = policy.micro_batch * (2 if guided and not policy.guidance_split else 1)
    latent_pixels = (width // _LATENT_PX) * (height // _LATENT_PX)
    denoising = int(rows * latent_pixels * model.unet_width * _UNET_MAPS * size)
    decoded = min(width * height, policy.tile_px**2 or width * height)
    decoding = int(policy.decode_chunk * decoded * model.vae_width * _VAE_MAPS * vae_size)
    if policy.placement == "resident":
        return text + unet + vae + max(denoising, decoding)
    if policy.placement == "text_offload":
        return unet + vae + max(text, denoising, decoding)
    held = int(unet * _UNET_SHARE.get(policy.placement, 1.0))
    return max(text, held + denoising, vae + decoding)
