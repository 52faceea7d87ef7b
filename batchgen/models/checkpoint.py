"""A model in one safetensors file, as trainers outside of diffusers write it: which parts it has, from its header.

Names of tensors tell parts and architecture, as diffusers 0.42.1 goes by them (loaders/single_file_utils.py).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batchgen.errors import ModelError
from batchgen.files import to_json
from batchgen.models.parts import Tensor, header

# What the names of the tensors of a part begin with. Where a file has none of these it is one part alone.
_UNET = "model.diffusion_model."
_PREFIXES = {
    "denoiser": (_UNET,),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": (
        "cond_stage_model.transformer.", "cond_stage_model.model.", "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
    "t5": ("text_encoders.t5xxl.transformer.",),
}  # fmt: skip
# A tensor that only this denoiser has: its class in diffusers, and what people call it. The first that fits counts.
_DENOISERS = (
    ("single_stream_modulation.lin.weight", "Flux2Transformer2DModel", "FLUX.2"),
    ("distilled_guidance_layer.in_proj.bias", "ChromaTransformer2DModel", "Chroma"),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "FluxTransformer2DModel", "FLUX.1"),
    ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "SD3Transformer2DModel", "Stable Diffusion 3"),
    ("layers.0.adaLN_modulation.0.weight", "ZImageTransformer2DModel", "Z-Image"),
    ("transformer_blocks.0.img_mod.1.weight", "QwenImageTransformer2DModel", "Qwen-Image"),
    ("blocks.0.cross_attn.q_linear.weight", "SanaTransformer2DModel", "Sana"),
    ("input_blocks.0.0.weight", "UNet2DConditionModel", "Stable Diffusion"),
    ("down_blocks.0.resnets.0.conv1.weight", "UNet2DConditionModel", "Stable Diffusion"),  # diffusers' own names
)
# The widths of the text that a UNet looks at, with the settings in the package (models/configs) that belong to it.
_SETTINGS = {
    768: ("sd15", "Stable Diffusion 1.x"),
    1024: ("sd21", "Stable Diffusion 2.x"),
    2048: ("sdxl", "Stable Diffusion XL"),
}
_VAE = ("decoder.conv_in.weight", "decoder.conv_out.weight")
_QUANTIZED = (".weight_scale", ".scale_weight", "scaled_fp8", ".absmax", ".quant_map", ".comfy_quant", ".weight_quant")
_PICKLED = (".ckpt", ".pt", ".pth", ".bin")
_KINDS = (
    (("lora_", ".lora", "hada_w", "lokr_"), "a LoRA"),
    (("control_model", "input_hint_block", "controlnet"), "a ControlNet"),
    (("ip_adapter", "image_proj"), "an IP-Adapter"),
    (("emb_params", "string_to_param", "clip_g"), "a textual inversion"),
    ((_UNET,), "a whole model in one file"),
)
_SAMPLED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A safetensors file with a model, or with parts of one.

    `parts`: for each part the prefix of its tensors' names and those tensors, by their names in the file; the part that
    denoises is "denoiser", and T5 is "t5". `kind`: the class of the denoiser in diffusers; None without one. `title`:
    what people call the model. `settings`: the name of the folder of settings in the package that belongs to the model;
    None where a base has to give them.
    """

    path: Path
    parts: dict[str, tuple[str, dict[str, Tensor]]]
    kind: str | None
    title: str
    settings: str | None
    predicts_v: bool
    ends_in_noise: bool

    @property
    def bytes(self) -> int:
        """How many bytes the parts take."""
        return sum(one.end - one.start for _, tensors in self.parts.values() for one in tensors.values())

    def digest(self) -> str:
        """What tells this file from others: a digest of its header and of the beginning of each tensor.

        Further training and merging change nearly all numbers of the tensors that they touch, so that gigabytes need
        not be read at each start. Raises OSError.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            for part, (prefix, tensors) in sorted(self.parts.items()):
                digest.update(to_json([part, prefix, len(tensors)]).encode())
                for name, one in sorted(tensors.items(), key=lambda item: item[1].start):
                    digest.update(to_json([name, one.dtype, one.shape]).encode())
                    file.seek(one.start)
                    digest.update(file.read(min(one.end - one.start, _SAMPLED_BYTES)))
        digest.update(to_json([self.predicts_v, self.ends_in_noise]).encode())
        return digest.hexdigest()


def refuse_format(key: str, path: Path) -> None:
    """Raise ModelError where a file is not of safetensors. `key`: the setting that names it."""
    if path.suffix == ".safetensors":
        return
    if path.suffix == ".gguf":
        raise ModelError(f"{key}={path} is quantized (GGUF), which batchgen does not run: use plain weights")
    if path.suffix in _PICKLED:
        raise ModelError(
            f"{key}={path} is pickled, and loading it could run any code: convert it to .safetensors where you trust it"
        )
    raise ModelError(
        f"{key}={path} is a file, but not of safetensors; name a folder in the diffusers layout, or a hub id"
    )


def look(key: str, path: Path) -> Checkpoint:
    """Look at a file that `key` names. Raises ModelError, in one line, for what batchgen cannot use."""
    refuse_format(key, path)
    found = header(path)
    parts = _parts(found)
    name = f"{key}={path}"
    if "denoiser" not in parts and "vae" not in parts:
        kind = kind_of(found)
        raise ModelError(f"{name} is {kind}, not a model" if kind else f"{name} holds no model that batchgen knows")
    _refuse_quantized(name, parts)
    prefix, tensors = parts.get("denoiser", ("", {}))
    own = {one.removeprefix(prefix) for one in tensors}
    kind, title = next(((kind, title) for mark, kind, title in _DENOISERS if mark in own), (None, ""))
    settings = None
    if kind == "UNet2DConditionModel" and f"{prefix}input_blocks.0.0.weight" in tensors:
        settings, title = _unet(name, prefix, tensors)
    if "edm_mean" in found:
        raise ModelError(f"{name} has a schedule of its own (EDM), which batchgen does not run from one file")
    return Checkpoint(path, parts, kind, title or "model", settings, "v_pred" in found, "ztsnr" in found)


def kind_of(names: Iterable[str]) -> str | None:
    """What a file with tensors of these names is, with its article; None where it is not known."""
    listed = list(names)
    return next((kind for words, kind in _KINDS if any(word in name for name in listed for word in words)), None)


def _parts(found: dict[str, Tensor]) -> dict[str, tuple[str, dict[str, Tensor]]]:
    parts = {}
    for part, prefixes in _PREFIXES.items():
        for prefix in prefixes:
            if inside := {name: one for name, one in found.items() if name.startswith(prefix)}:
                parts[part] = (prefix, inside)
                break
    if parts:
        return parts
    if any(mark in found for mark, _, _ in _DENOISERS):
        return {"denoiser": ("", found)}
    return {"vae": ("", found)} if found.keys() >= {*_VAE} else {}


def _refuse_quantized(name: str, parts: dict[str, tuple[str, dict[str, Tensor]]]) -> None:
    for part, (_, tensors) in parts.items():
        for tensor, one in tensors.items():
            if one.dtype.startswith("F8"):
                raise ModelError(
                    f"{name} is in fp8 ({part}), which batchgen does not run: use its fp16, bf16 or fp32 file"
                )
            if one.dtype in ("I8", "U8") or tensor.endswith(_QUANTIZED):
                raise ModelError(f"{name} is quantized ({part}), which batchgen does not run: use plain weights")


def _unet(name: str, prefix: str, tensors: dict[str, Tensor]) -> tuple[str | None, str]:
    """The settings for a UNet, and what people call it. Raises ModelError for one that does not make images of text."""
    channels = tensors[f"{prefix}input_blocks.0.0.weight"].shape[1]
    if channels != 4:
        use = {9: "inpainting", 8: "editing"}.get(channels, "another use")
        raise ModelError(f"{name} takes {channels} channels, as for {use}; batchgen makes images from text alone")
    widths = {one.shape[-1] for key, one in tensors.items() if key.endswith("attn2.to_k.weight")}
    if widths == {1280}:
        raise ModelError(f"{name} is the refiner of Stable Diffusion XL, which batchgen does not run")
    return _SETTINGS.get(min(widths, default=0), (None, "Stable Diffusion"))
