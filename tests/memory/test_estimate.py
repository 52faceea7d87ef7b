"""Estimates: the figures that are read from the headers of a model's files."""

import json
from pathlib import Path

import pytest

from batchgen.errors import ModelError
from batchgen.memory.estimate import estimate
from batchgen.memory.figures import Weights, at
from batchgen.models.find import ModelFiles
from batchgen.places import models_dir

TINY = models_dir() / "tiny"


def read_weights(folder: Path, variant: str | None, dtype: str) -> Weights:
    return estimate(ModelFiles(folder, variant), dtype, 64, 64).weights


def test_the_bundled_model_is_read_from_its_headers() -> None:
    found = read_weights(TINY, None, "fp16")
    stored = sum(path.stat().st_size for path in TINY.rglob("*.safetensors"))
    assert 0 < stored - (found.text_bytes + found.unet_bytes + found.vae_bytes) < 0.01 * stored  # fp16, and headers
    assert read_weights(TINY, None, "fp32").unet_bytes == 2 * found.unet_bytes
    assert found.largest_unet_layer_bytes < found.unet_bytes / 10
    assert found.unet_layers > 100


def write(folder: Path, name: str, shape: list[int], layer: str = "conv") -> None:
    entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": {}, f"{layer}.weight": entry})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header.encode())
    config = {"block_out_channels": [320, 640], "down_block_types": ["DownBlock2D"], "force_upcast": True}
    (folder / "config.json").write_text(json.dumps(config))


def _index(family: str) -> str:
    return json.dumps({"_class_name": family, "scheduler": ["diffusers", "DDIMScheduler"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model_index.json").write_text(_index("StableDiffusionPipeline"))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        pieces = {"conv.weight": "a-00001-of-00002.safetensors", "norm.weight": "a-00002-of-00002.safetensors"}
        write(tmp_path / part, pieces["conv.weight"], [10, 10])
        write(tmp_path / part, pieces["norm.weight"], [5], "norm")
        stem = "model" if "text" in part else "diffusion_pytorch_model"
        (tmp_path / part / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": pieces}))
    return tmp_path


def test_weights_in_several_files_add_up_and_a_variant_is_counted_once(folder: Path) -> None:
    assert read_weights(folder, None, "fp16").text_bytes == 210
    (folder / "model_index.json").write_text(_index("StableDiffusionXLPipeline"))
    assert read_weights(folder, None, "fp16").text_bytes == 2 * 210
    write(folder / "unet", "diffusion_pytorch_model.fp16.safetensors", [7])
    assert read_weights(folder, "fp16", "fp16").unet_bytes == 14
    found = read_weights(folder, None, "fp32")
    assert (found.unet_bytes, found.largest_unet_layer_bytes, found.unet_layers) == (420, 400, 2)


def test_only_families_that_upcast_have_a_vae_of_twice_the_size(folder: Path) -> None:
    assert read_weights(folder, None, "fp16").vae_bytes == 210
    (folder / "model_index.json").write_text(_index("StableDiffusionXLPipeline"))
    assert read_weights(folder, None, "fp16").vae_bytes == 420
    assert read_weights(folder, None, "bf16").vae_bytes == 210


def test_an_estimate_grows_with_the_image(folder: Path) -> None:
    small, large = (estimate(ModelFiles(folder), "fp16", edge, edge) for edge in (512, 1024))
    assert not small.measured
    assert at(large.pass_bytes, 2) == 4 * at(small.pass_bytes, 2)
    assert large.decode_bytes == small.decode_bytes
    assert at(large.pass_s, 2) > at(small.pass_s, 2)


def test_a_folder_without_a_model_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        read_weights(tmp_path, None, "fp16")


def transformer(folder: Path, family: str, **config: object) -> Path:
    """The headers of a transformer of two blocks, a VAE, and a text encoder larger than it."""
    (folder / "model_index.json").write_text(_index(family))
    for part, shape in (("transformer", [3072, 3072]), ("vae", [10, 10]), ("text_encoder", [9000, 4096])):
        write(folder / part, f"{'model' if 'text' in part else 'diffusion_pytorch_model'}.safetensors", shape)
    (folder / "transformer/config.json").write_text(json.dumps(config))
    (folder / "vae/config.json").write_text(json.dumps({"block_out_channels": [128, 256, 512, 512]}))
    (folder / "text_encoder/config.json").write_text(json.dumps({"d_ff": 10240, "vocab_size": 32128}))
    return folder


def test_a_transformer_takes_memory_by_its_tokens_and_an_encoder_may_be_larger(tmp_path: Path) -> None:
    folder = transformer(tmp_path, "FluxPipeline", num_attention_heads=24, attention_head_dim=128)
    small, large = (estimate(ModelFiles(folder), "bf16", edge, edge) for edge in (512, 1024))
    mib = 2**20
    # FLUX.1 with two of each kind of block on torch's meta device: 464 MiB for one row of 1024 x 1024
    assert 464 * mib < at(large.pass_bytes, 1) < 1.1 * 464 * mib
    assert at(large.pass_bytes, 4) == 4 * at(large.pass_bytes, 1)
    assert at(small.pass_bytes, 1) == at(large.pass_bytes, 1) * (1024 + 512) / (4096 + 512)
    assert large.weights.text_bytes > large.weights.unet_bytes == 3072 * 3072 * 2
    assert large.encode_bytes == 4 * 512 * 3 * 10240 * 2
    assert sum(size_bytes for size_bytes, _ in large.stream_groups) == large.weights.unet_bytes


def test_vaes_of_other_kinds_have_their_own_cost(tmp_path: Path) -> None:
    folder = transformer(tmp_path, "QwenImagePipeline", num_attention_heads=24, attention_head_dim=128)
    vae = {"_class_name": "AutoencoderKLQwenImage", "temperal_downsample": [False, True, True]}
    (folder / "vae/config.json").write_text(json.dumps(vae))
    [[_, per_pixel]] = estimate(ModelFiles(folder), "bf16", 512, 512).decode_bytes
    assert 3459 < per_pixel < 1.25 * 3459
