"""Weights that lie beside a model's parts are told, once, and its parts' own other formats are not."""

import json
import shutil
from pathlib import Path

import pytest

from batchgen.models.beside import unused_line
from batchgen.models.find import ModelFiles
from batchgen.paths import RunDir
from batchgen.places import models_dir
from batchgen.prepare import prepare
from tests.builders import make_config


def with_tensor(path: Path, name: str) -> None:
    """A safetensors file of one empty tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(models_dir() / "tiny", tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("style.safetensors", "unet.down.lora_A.weight", "style.safetensors (a LoRA)"),
        (
            "unet/pytorch_lora_weights.safetensors",
            "up.lora.down.weight",
            "unet/pytorch_lora_weights.safetensors (a LoRA)",
        ),
        ("embeddings/cat.safetensors", "emb_params", "embeddings/cat.safetensors (a textual inversion)"),
        ("controlnet/model.safetensors", "input_hint_block.0.weight", "controlnet/model.safetensors (a ControlNet)"),
        ("ip-adapter.safetensors", "image_proj.norm.bias", "ip-adapter.safetensors (an IP-Adapter)"),
        ("v1.safetensors", "model.diffusion_model.out.0.bias", "v1.safetensors (a whole model in one file)"),
        ("other.safetensors", "a", "other.safetensors in"),
    ],
)
def test_what_is_not_used_is_told_by_name_and_kind(folder: Path, name: str, tensor: str, told: str) -> None:
    with_tensor(folder / name, tensor)
    line = unused_line(ModelFiles(folder))
    assert line is not None and told in line and "\n" not in line


def test_pickled_files_are_told_too_and_many_are_counted(folder: Path) -> None:
    for name in ("a.ckpt", "b.pt", "c.bin", "my_lora.pt", "e.pth"):
        (folder / name).write_bytes(b"pickle")
    line = unused_line(ModelFiles(folder))
    assert line is not None and "a.ckpt, b.pt, c.bin and 2 more" in line


def test_other_formats_and_variants_of_the_parts_and_hidden_files_are_no_news(folder: Path) -> None:
    for name in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.fp16.bin", ".cache/a.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with_tensor(folder / "vae/diffusion_pytorch_model.non_ema.safetensors", "a")
    assert unused_line(ModelFiles(folder)) is None


def test_it_is_said_when_the_run_is_planned_and_not_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_tensor(folder / "style.safetensors", "lora_A")
    config = make_config(tmp_path, model__path=str(folder))
    for times in (1, 0):
        plan = prepare(RunDir(Path(config.run_dir)), config)
        assert capsys.readouterr().err.count("style.safetensors (a LoRA)") == times
        plan.run.create_directories()
        (plan.run.work / "begun").write_text("")
