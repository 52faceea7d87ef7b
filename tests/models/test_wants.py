"""What settings want from the hub, and which files of it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError
from batchgen.models.hub import look
from batchgen.models.wants import Want, names_of, wants_of
from batchgen.places import models_dir
from tests.model_hub import Hub, model_hub, reach

WEIGHTS = "diffusion_pytorch_model"
LORAS = [Want("model.lora", "org/a", "1.safetensors"), Want("model.lora", "org/b", "2.safetensors")]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with model_hub() as hub:
        reach(hub, tmp_path / "cache", monkeypatch)
        hub.add("org/model", models_dir() / "tiny_2")
        yield hub


def settings(**said: Any) -> Any:
    """Settings of a model with keys that a later version has."""
    return SimpleNamespace(**{"path": "tiny", "revision": None, "variant": None, "safety_checker": "off"} | said)


@pytest.mark.parametrize(
    ("said", "wants"),
    [
        ({}, []),
        ({"path": "org/model", "revision": "v1"}, [Want("model.path", "org/model", None, "v1")]),
        ({"path": "org/model/a b/one.safetensors"}, [Want("model.path", "org/model", "a b/one.safetensors")]),
        ({"vae": "org/vae"}, [Want("model.vae", "org/vae")]),
        (
            {"vae": "org/vae/one.safetensors", "base": "org/model"},
            [Want("model.base", "org/model"), Want("model.vae", "org/vae", "one.safetensors")],
        ),
        ({"lora": "org/a/1.safetensors:0.8"}, LORAS[:1]),
        ({"lora": "org/a/1.safetensors+org/b/2.safetensors:-1"}, LORAS),
        ({"lora": ["mine.safetensors", "org/a/1.safetensors", "org/a/1.safetensors"]}, LORAS[:1]),
    ],
)
def test_what_is_on_the_hub_is_told_from_what_is_here(
    said: dict[str, Any], wants: list[Want], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wants_of(settings(**said)) == wants


def test_files_that_are_here_are_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loras" / "mine").mkdir(parents=True)
    (tmp_path / "loras" / "mine" / "one.safetensors").touch()
    assert wants_of(settings(lora="loras/mine/one.safetensors:0.5", vae="loras/mine")) == []
    assert wants_of(settings(lora="loras/mine/missing.safetensors")) == [], "the run says what is wrong with it"


def test_the_files_of_a_model_are_those_that_a_run_loads(hub: Hub) -> None:
    files = hub.models["org/model"]
    files |= {
        "README.md": b"",
        "one.safetensors": b"1",
        f"unet/{WEIGHTS}.bin": b"2",
        f"unet/{WEIGHTS}.fp16.safetensors": b"3",
    }
    repository = look("org/model", None)
    plain = names_of(Want("model.path", "org/model"), repository, ModelConfig("org/model"))
    assert f"unet/{WEIGHTS}.safetensors" in plain and "tokenizer/tokenizer.json" in plain
    assert not {"README.md", "one.safetensors", f"unet/{WEIGHTS}.bin", f"unet/{WEIGHTS}.fp16.safetensors"} & set(plain)
    half = names_of(Want("model.path", "org/model"), repository, ModelConfig("org/model", variant="fp16"))
    assert set(half) ^ set(plain) == {f"unet/{WEIGHTS}.safetensors", f"unet/{WEIGHTS}.fp16.safetensors"}
    base = names_of(Want("model.base", "org/model"), repository, ModelConfig("org/model"))
    assert set(plain) - set(base) == {f"unet/{WEIGHTS}.safetensors"}, "the file of model.path has the denoiser"
    only = names_of(Want("model.lora", "org/model", "one.safetensors"), repository, ModelConfig("tiny"))
    assert only == ["one.safetensors"]
    with pytest.raises(
        ModelError, match=r"model.lora: org/model has no on.safetensors; did you mean one.safetensors\?"
    ):
        names_of(Want("model.lora", "org/model", "on.safetensors"), repository, ModelConfig("tiny"))


def test_a_model_that_could_not_run_is_not_fetched(hub: Hub) -> None:
    hub.add("org/video", {"model_index.json": b'{"_class_name": "WanPipeline", "scheduler": ["diffusers", "X"]}'})
    with pytest.raises(ModelError, match="^org/video is a WanPipeline, which batchgen does not run"):
        names_of(Want("model.path", "org/video"), look("org/video", None), ModelConfig("org/video"))
    with pytest.raises(ModelError, match=r"^model.variant=fp61: org/model has no such weights"):
        names_of(Want("model.path", "org/model"), look("org/model", None), ModelConfig("org/model", variant="fp61"))
    assert not hub.contents()


@pytest.mark.parametrize("place", ["", "vae/"])
def test_the_files_of_a_vae(hub: Hub, place: str) -> None:
    wanted = [f"{place}config.json", f"{place}{WEIGHTS}.safetensors"]
    hub.add("org/vae", dict.fromkeys([*wanted, f"{place}{WEIGHTS}.bin", "README.md", "sdxl_vae.safetensors"], b"{}"))
    assert names_of(Want("model.vae", "org/vae"), look("org/vae", None), ModelConfig("tiny")) == wanted
    hub.add("org/other", {"README.md": b""})
    with pytest.raises(ModelError, match=r"model.vae: org/other has no VAE in the diffusers layout"):
        names_of(Want("model.vae", "org/other"), look("org/other", None), ModelConfig("tiny"))
