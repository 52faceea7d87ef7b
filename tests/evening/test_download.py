"""What of a hub model is still to be downloaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from batchgen.config.schema import ModelConfig
from batchgen.evening.download import to_download
from batchgen.models.find import download
from batchgen.places import models_dir
from tests.model_hub import Hub, model_hub, reach


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with model_hub() as hub:
        reach(hub, tmp_path / "cache", monkeypatch)
        hub.add("org/model", models_dir() / "tiny_2")
        yield hub


def test_the_sizes_of_what_a_run_loads_are_added_up(hub: Hub, tmp_path: Path) -> None:
    files = hub.models["org/model"]
    loaded = sum(len(data) for name, data in files.items() if name != "README.md" and "/" in name)
    whole = loaded + len(files["model_index.json"])
    files |= {"v1-5.safetensors": b"1" * 10_000, "unet/diffusion_pytorch_model.bin": b"2" * 10_000}
    files["unet/diffusion_pytorch_model.non_ema.safetensors"] = b"3" * 10_000
    files["unet/diffusion_pytorch_model.fp16.safetensors"] = b"4" * 200
    assert to_download(ModelConfig("org/model")).bytes == whole
    unet = len(files["unet/diffusion_pytorch_model.safetensors"])
    assert to_download(ModelConfig("org/model", variant="fp16")).bytes == whole - unet + 200
    assert not (tmp_path / "cache").exists(), "a dry run writes nothing"
    assert not hub.contents(), "no weights were sent"
    download(ModelConfig("org/model"))
    assert to_download(ModelConfig("org/model")).bytes == 0


def test_where_it_is_not_known_one_line_says_why(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    other = to_download(ModelConfig("org/other"))
    assert other.bytes is None and "org/other cannot be downloaded: the hub has no such model" in other.why
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in to_download(ModelConfig("org/model")).why
