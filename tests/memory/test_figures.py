"""Figures: read from a model's files, kept on disk, and seconds between what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.memory import cache
from batchgen.memory.estimate import estimate
from batchgen.memory.figures import Weights, at, call_s
from batchgen.models.find import ModelFiles
from batchgen.paths import models_dir
from tests.memory.cards import sd15_512

TINY = models_dir() / "tiny"


def read_weights(folder: Path, variant: str | None, dtype: str) -> Weights:
    return estimate(ModelFiles(folder, variant), dtype, 64, 64).weights


def test_the_carried_model_is_read_from_its_headers() -> None:
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        pieces = {"conv.weight": "a-00001-of-00002.safetensors", "norm.weight": "a-00002-of-00002.safetensors"}
        write(tmp_path / part, pieces["conv.weight"], [10, 10])
        write(tmp_path / part, pieces["norm.weight"], [5], "norm")
        stem = "model" if "text" in part else "diffusion_pytorch_model"
        (tmp_path / part / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": pieces}))
    return tmp_path


def test_weights_in_several_files_add_up_and_a_variant_is_counted_once(folder: Path) -> None:
    assert read_weights(folder, None, "fp16").text_bytes == 2 * 210
    write(folder / "unet", "diffusion_pytorch_model.fp16.safetensors", [7])
    assert read_weights(folder, "fp16", "fp16").unet_bytes == 14
    found = read_weights(folder, None, "fp32")
    assert (found.unet_bytes, found.largest_unet_layer_bytes, found.unet_layers) == (420, 400, 2)


def test_only_families_that_upcast_have_a_vae_of_twice_the_size(folder: Path) -> None:
    assert read_weights(folder, None, "fp16").vae_bytes == 210
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    assert read_weights(folder, None, "fp16").vae_bytes == 420
    assert read_weights(folder, None, "bf16").vae_bytes == 210


def test_an_estimate_grows_with_the_image(folder: Path) -> None:
    small, large = (estimate(ModelFiles(folder), "fp16", edge, edge) for edge in (512, 1024))
    assert not small.measured
    assert at(large.pass_bytes, 2) == 4 * at(small.pass_bytes, 2)
    assert large.decode_bytes == small.decode_bytes
    assert at(large.pass_s, 2) > at(small.pass_s, 2)


def test_a_folder_that_is_no_model_is_an_error_of_its_reading(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        read_weights(tmp_path, None, "fp16")


@pytest.mark.parametrize(("amount", "seconds"), [(2, 1.0), (4, 1.5), (6, 2.0), (12, 4.0), (1, 0.5), (0.1, 0.2)])
def test_seconds_lie_on_lines_and_beyond_grow_in_proportion(amount: float, seconds: float) -> None:
    assert at(((2, 1.0), (6, 2.0)), amount) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("pixels", "count", "seconds"), [(4, 1, 1.0), (4, 2, 1.5), (8, 2, 3.0), (16, 1, 9.0), (2, 1, 0.5)]
)
def test_a_call_takes_what_the_next_smaller_piece_did(pixels: int, count: int, seconds: float) -> None:
    pieces = ((4, ((1, 1.0), (2, 1.5))), (16, ((1, 9.0),)))
    assert call_s(pieces, pixels, count) == pytest.approx(seconds)


def test_kept_figures_come_back_and_damaged_ones_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path))
    figures = sd15_512()
    assert cache.load("one") is None
    cache.save("one", figures)
    assert cache.load("one") == figures
    cache.save("one", replace(figures, encode_bytes=7))
    assert cache.load("one") == replace(figures, encode_bytes=7)
    (path,) = (tmp_path / "figures").iterdir()
    for damaged in ("", "[]", "{}", path.read_text()[:-20], path.read_text().replace("pass_s", "other")):
        path.write_text(damaged)
        assert cache.load("one") is None


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "file"))
    cache.save("one", sd15_512())
    assert cache.load("one") is None
