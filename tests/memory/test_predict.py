"""The simple prediction: read from the model's files alone, and near what was measured on one H100."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchgen.config import PLACEMENTS
from batchgen.memory.predict import Footprint, predict_peak_bytes, read_footprint
from batchgen.paths import models_dir
from batchgen.types import Policy
from tests.builders import POLICY

GIB = 1 << 30
SD15 = Footprint(123_060_480, 859_520_964, 83_653_863, 320, 256, vae_fp32=False)
FP16 = replace(POLICY, dtype="fp16", micro_batch=32, decode_chunk=1)


def test_the_carried_model_is_read_from_its_headers() -> None:
    folder = models_dir() / "tiny"
    found = read_footprint(folder, None)
    stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    total = found.text_weights + found.unet_weights + found.vae_weights
    assert 0 < stored - 2 * total < 0.01 * stored  # fp16, and headers
    assert found.unet_width == json.loads((folder / "unet" / "config.json").read_text())["block_out_channels"][0]


def write(folder: Path, name: str, shape: list[int]) -> None:
    header = json.dumps({"__metadata__": {}, "weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header.encode())
    (folder / "config.json").write_text('{"block_out_channels": [320, 640]}')


def test_weights_in_several_files_add_up_and_a_variant_is_counted_once(tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        write(tmp_path / part, "model-00001-of-00002.safetensors", [10, 10])
        write(tmp_path / part, "model-00002-of-00002.safetensors", [5])
    assert read_footprint(tmp_path, None).text_weights == 210
    write(tmp_path / "unet", "model.fp16.safetensors", [7])
    assert read_footprint(tmp_path, "fp16").unet_weights == 7
    assert read_footprint(tmp_path, None).unet_weights == 105


# Peak bytes allocated by SD 1.5 at 512x512 in fp16, chunk 1 where not said: measured with plain diffusers, 10 steps.
@pytest.mark.parametrize(
    ("policy", "measured_gib"),
    [
        (FP16, 6.1),
        (replace(FP16, decode_chunk=32), 18.1),
        (replace(FP16, placement="model_offload"), 5.7),
        (replace(FP16, placement="group_offload_leaf"), 4.1),
        (replace(FP16, placement="sequential_offload"), 4.1),
        (replace(FP16, micro_batch=4), 2.7),
    ],
)
def test_the_prediction_is_near_what_was_measured(policy: Policy, measured_gib: float) -> None:
    assert predict_peak_bytes(SD15, policy, 512, 512) / GIB == pytest.approx(measured_gib, rel=0.15)


def test_each_placement_takes_less_than_the_one_before_it() -> None:
    one = replace(FP16, micro_batch=1)
    peaks = [predict_peak_bytes(SD15, replace(one, placement=placement), 512, 512) for placement in PLACEMENTS]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > 2 * peaks[-1]


@pytest.mark.parametrize(
    "changes", [{"micro_batch": 8}, {"guidance_split": True}, {"placement": "model_offload"}], ids=str
)
def test_what_saves_memory_is_predicted_to(changes: dict[str, Any]) -> None:
    assert predict_peak_bytes(SD15, replace(FP16, **changes), 512, 512) < predict_peak_bytes(SD15, FP16, 512, 512)


def test_tiling_bounds_what_a_large_image_takes() -> None:
    whole = replace(FP16, micro_batch=1)
    tiled = replace(whole, tile_px=512)
    assert predict_peak_bytes(SD15, tiled, 3840, 2224) < 0.6 * predict_peak_bytes(SD15, whole, 3840, 2224)


def test_a_vae_that_wants_fp32_takes_twice_as_much() -> None:
    large = replace(FP16, micro_batch=1, decode_chunk=32)
    wants = replace(SD15, vae_fp32=True)
    assert predict_peak_bytes(wants, large, 1024, 1024) > 1.8 * predict_peak_bytes(SD15, large, 1024, 1024)
