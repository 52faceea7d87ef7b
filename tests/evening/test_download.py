"""What of a hub model is still to be downloaded."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from batchgen.config.schema import ModelConfig
from batchgen.evening.download import to_download
from batchgen.models.find import ModelFiles, in_cache
from batchgen.places import models_dir

FILES = {
    "model_index.json": 1, "README.md": 10_000, "v1-5.ckpt": 10_000, "v1-5.safetensors": 10_000,
    "unet/config.json": 2, "unet/diffusion_pytorch_model.safetensors": 400, "unet/diffusion_pytorch_model.bin": 10_000,
    "unet/diffusion_pytorch_model.fp16.safetensors": 200, "unet/diffusion_pytorch_model.non_ema.safetensors": 10_000,
    "vae/config.json": 3, "vae/diffusion_pytorch_model.safetensors": 80,
    "tokenizer/vocab.json": 5, "tokenizer/merges.txt": 4,
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hub, with one model; the keyword arguments that it was asked with."""
    asked: list[Any] = []

    def info(_: Any, name: str, **options: Any) -> Any:
        asked.append(options)
        if name != "org/model":
            raise OSError("404 Client Error.\nA long text")
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file, size=size) for file, size in FILES.items()])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    return asked


def test_the_sizes_of_what_a_run_loads_are_added_up(hub: Any) -> None:
    small = 1 + 2 + 3 + 5 + 4
    assert to_download(ModelConfig("org/model")).bytes == small + 400 + 80
    assert to_download(ModelConfig("org/model", variant="fp16")).bytes == small + 200 + 80
    assert all(options["timeout"] for options in hub)


def test_a_model_in_the_cache_is_found_without_the_network(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(models_dir() / "tiny", tmp_path / "snapshots" / "abc")
    index = str(folder / "model_index.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: index)
    assert in_cache(ModelConfig("org/model")) == ModelFiles(folder)
    shutil.rmtree(folder / "vae")
    assert in_cache(ModelConfig("org/model")) is None, "the download was cut off"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    assert in_cache(ModelConfig("org/model")) is None and not hub


def test_without_a_network_it_is_not_known_and_one_line_says_why(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = to_download(ModelConfig("org/other"))
    assert (other.bytes, other.why) == (None, "404 Client Error.")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in to_download(ModelConfig("org/model")).why
