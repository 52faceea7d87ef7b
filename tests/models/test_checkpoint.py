"""Files of one model told apart by their headers alone."""

import json
import struct

import pytest

from batchgen.errors import ModelError
from batchgen.models.checkpoint import look

UNET = "model.diffusion_model."
SD = {f"{UNET}input_blocks.0.0.weight": [8, 4, 3, 3], f"{UNET}input_blocks.1.1.attn2.to_k.weight": [8, 768]}
VAE = {"decoder.conv_in.weight": [8, 4, 3, 3], "decoder.conv_out.weight": [3, 8, 3, 3]}


def write(path, shapes, dtype="F16", fill=0):
    """A file of safetensors with tensors of these shapes; `fill` is each of its bytes."""
    size = {"F16": 2, "F8_E4M3": 1, "U8": 1, "F32": 4}[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        count = size
        for edge in shape:
            count *= edge
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes([fill]) * end)
    return path


def kinds():
    """{name of a test: (shapes of tensors, settings, class of the denoiser)}."""
    wide = dict(SD)
    wide[f"{UNET}input_blocks.1.1.attn2.to_k.weight"] = [8, 1024]
    xl = wide | {f"{UNET}input_blocks.1.1.attn2.to_k.weight": [8, 2048]}
    return {
        "sd15": (SD, "sd15", "UNet2DConditionModel"),
        "sd21": (wide, "sd21", "UNet2DConditionModel"),
        "sdxl": (xl, "sdxl", "UNet2DConditionModel"),
        "a UNet alone": ({name.removeprefix(UNET): one for name, one in SD.items()}, "sd15", "UNet2DConditionModel"),
        "FLUX.1": ({"double_blocks.0.img_attn.norm.key_norm.scale": [8]}, None, "FluxTransformer2DModel"),
        "FLUX.1 under a prefix": (
            {f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": [8]}, None, "FluxTransformer2DModel",
        ),
        "SD 3": ({"joint_blocks.0.context_block.adaLN_modulation.1.bias": [8]}, None, "SD3Transformer2DModel"),
        "Z-Image": ({"layers.0.adaLN_modulation.0.weight": [8, 8]}, None, "ZImageTransformer2DModel"),
        "Qwen-Image": ({"transformer_blocks.0.img_mod.1.weight": [8, 8]}, None, "QwenImageTransformer2DModel"),
        "FLUX.2": (
            {"double_blocks.0.img_attn.norm.key_norm.scale": [8], "single_stream_modulation.lin.weight": [8, 8]}, None,
            "Flux2Transformer2DModel",
        ),
        "a VAE": (VAE, None, None),
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
def test_names_of_tensors_tell_what_a_file_is(kind, tmp_path):
    shapes, settings, denoiser = kinds()[kind]
    found = look("model.path", write(tmp_path / "a.safetensors", shapes))
    assert (found.settings, found.kind) == (settings, denoiser)
    assert set(found.parts) == ({"vae"} if denoiser is None else {"denoiser"})
    assert found.bytes == sum(2 * _count(shape) for shape in shapes.values())


def _count(shape):
    total = 1
    for edge in shape:
        total *= edge
    return total


def test_parts_are_told_by_prefixes_and_what_belongs_to_none_does_not_count(tmp_path):
    shapes = SD | {
        "first_stage_model.decoder.conv_in.weight": [8, 4, 3, 3], "cond_stage_model.model.ln_final.weight": [8],
        "conditioner.embedders.1.model.ln_final.weight": [8], "model_ema.decay": [1], "v_pred": [0], "ztsnr": [0],
    }  # fmt: skip
    found = look("model.path", write(tmp_path / "a.safetensors", shapes))
    assert {name: prefix for name, (prefix, _) in found.parts.items()} == {
        "denoiser": UNET, "vae": "first_stage_model.", "text_encoder": "cond_stage_model.model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    }  # fmt: skip
    assert found.predicts_v and found.ends_in_noise


@pytest.mark.parametrize(
    ("name", "shapes", "dtype", "said"),
    [
        ("a.ckpt", SD, "F16", "is pickled, and loading it could run any code: convert it to .safetensors"),
        ("a.gguf", SD, "F16", r"is quantized \(GGUF\)"),
        ("a.txt", SD, "F16", "is a file, but not of safetensors"),
        ("a.safetensors", SD, "F8_E4M3", r"is in fp8 \(denoiser\), which batchgen does not run: use its fp16"),
        ("a.safetensors", SD, "U8", "is quantized"),
        ("a.safetensors", SD | {f"{UNET}a.weight_scale": [1]}, "F16", "is quantized"),
        ("a.safetensors", {"lora_unet_a.lora_down.weight": [4, 4]}, "F16", "is a LoRA, not a model"),
        ("a.safetensors", {"emb_params": [4, 4]}, "F16", "is a textual inversion, not a model"),
        ("a.safetensors", {"x": [4, 4]}, "F16", "holds no model that batchgen knows"),
        ("a.safetensors", SD | {f"{UNET}input_blocks.0.0.weight": [8, 9, 3, 3]}, "F16", "9 channels, as for inpaint"),
        (
            "a.safetensors", SD | {f"{UNET}input_blocks.1.1.attn2.to_k.weight": [8, 1280]}, "F16",
            "is the refiner of Stable Diffusion XL",
        ),
        ("a.safetensors", SD | {"edm_mean": [4]}, "F16", "a schedule of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(tmp_path, name, shapes, dtype, said):
    path = write(tmp_path / name, shapes, dtype)
    with pytest.raises(ModelError, match=said) as caught:
        look("model.path", path)
    assert str(caught.value).startswith(f"model.path={path}") and "\n" not in str(caught.value)


def test_the_digest_tells_files_apart_that_differ_in_one_tensor(tmp_path):
    shapes = {f"{UNET}{place}.weight": [3000] for place in range(40)} | SD
    path = write(tmp_path / "a.safetensors", shapes)
    first = look("model.path", path).digest()
    moved = tmp_path / "b.safetensors"
    moved.write_bytes(path.read_bytes())
    assert look("model.path", moved).digest() == first
    data = bytearray(path.read_bytes())
    one = look("model.path", path).parts["denoiser"][1][f"{UNET}7.weight"]
    data[one.start : one.end] = bytes([1]) * (one.end - one.start)
    path.write_bytes(data)
    assert look("model.path", path).digest() != first
