"""What settings want from the hub, and which files of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.errors import ModelError
from batchgen.models.hub import look
from batchgen.models.wants import Want, names_of
from batchgen.places import models_dir
from tests.model_hub import Hub, model_hub, reach

WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with model_hub() as hub:
        reach(hub, tmp_path / "cache", monkeypatch)
        hub.add("org/model", models_dir() / "tiny_2")
        yield hub


def test_the_files_of_a_model_are_those_that_a_run_loads(hub: Hub) -> None:
    files = hub.models["org/model"]
    files |= {
        "README.md": b"",
        "one.safetensors": b"1",
        f"unet/{WEIGHTS}.bin": b"2",
        f"unet/{WEIGHTS}.fp16.safetensors": b"3",
    }
    repository = look("org/model", None)
    plain = names_of(Want("model.path", "org/model"), repository, None, False)
    assert f"unet/{WEIGHTS}.safetensors" in plain and "tokenizer/tokenizer.json" in plain
    assert not {"README.md", "one.safetensors", f"unet/{WEIGHTS}.bin", f"unet/{WEIGHTS}.fp16.safetensors"} & set(plain)
    half = names_of(Want("model.path", "org/model"), repository, "fp16", False)
    assert set(half) ^ set(plain) == {f"unet/{WEIGHTS}.safetensors", f"unet/{WEIGHTS}.fp16.safetensors"}
    base = names_of(Want("model.base", "org/model"), repository, None, False)
    assert set(plain) - set(base) == {f"unet/{WEIGHTS}.safetensors"}, "the file of model.path has the denoiser"
    assert set(base) < set(plain), "but its settings tell what the file holds"
    only = names_of(Want("model.lora", "org/model", "one.safetensors"), repository, None, False)
    assert only == ["one.safetensors"]
    with pytest.raises(
        ModelError, match=r"model.lora: org/model has no on.safetensors; did you mean one.safetensors\?"
    ):
        names_of(Want("model.lora", "org/model", "on.safetensors"), repository, None, False)


def test_a_model_that_could_not_run_is_not_fetched(hub: Hub) -> None:
    hub.add("org/video", {"model_index.json": b'{"_class_name": "WanPipeline", "scheduler": ["diffusers", "X"]}'})
    with pytest.raises(ModelError, match="^org/video is a WanPipeline, which batchgen does not run"):
        names_of(Want("model.path", "org/video"), look("org/video", None), None, False)
    with pytest.raises(ModelError, match=r"^model.variant=fp61: org/model has no such weights"):
        names_of(Want("model.path", "org/model"), look("org/model", None), "fp61", False)
    assert not hub.contents()


@pytest.mark.parametrize("place", ["", "vae/"])
def test_the_files_of_a_vae(hub: Hub, place: str) -> None:
    wanted = [f"{place}config.json", f"{place}{WEIGHTS}.safetensors"]
    hub.add("org/vae", dict.fromkeys([*wanted, f"{place}{WEIGHTS}.bin", "README.md", "sdxl_vae.safetensors"], b"{}"))
    assert names_of(Want("model.vae", "org/vae"), look("org/vae", None), None, False) == wanted
    hub.add("org/other", {"README.md": b""})
    with pytest.raises(ModelError, match=r"model.vae: org/other has no VAE in the diffusers layout"):
        names_of(Want("model.vae", "org/other"), look("org/other", None), None, False)
