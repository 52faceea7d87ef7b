"""What settings name: here, on the hub, or neither. The hub is a cache on disk, read offline by the real client."""

import pytest

from batchgen.config.schema import ModelConfig
from batchgen.errors import ModelError
from batchgen.models.sources import cached, fetched, is_hub_model, local, wants_of
from batchgen.models.wants import Want
from batchgen.places import models_dir

LORAS = [Want("model.lora", "org/a", "1.safetensors"), Want("model.lora", "org/b", "2.safetensors")]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with org/vae, which is a VAE, and org/files with a checkpoint."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name, file in (("vae", "config.json"), ("files", "deep/a.safetensors")):
        folder = tmp_path / "hub" / f"models--org--{name}"
        (folder / "snapshots" / COMMIT / file).parent.mkdir(parents=True)
        (folder / "snapshots" / COMMIT / file).write_text("{}")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


def test_bundled_models_folders_and_files_are_here_and_hub_ids_are_not(tmp_path):
    (tmp_path / "a.safetensors").touch()
    assert local("model.path", "tiny") == models_dir() / "tiny"
    assert local("model.path", str(tmp_path)) == tmp_path
    assert local("model.vae", str(tmp_path / "a.safetensors")) == tmp_path / "a.safetensors"
    assert local("model.base", "org/name") is None and local("model.path", "org/name/deep/a.safetensors") is None
    assert is_hub_model("org/name") and not is_hub_model("org/name/a.safetensors")


def test_a_name_that_is_nothing_is_compared_with_what_is_there(tmp_path):
    (tmp_path / "realistic.safetensors").touch()
    with pytest.raises(ModelError, match=r"model.vae=.*: no such folder, .*; did you mean realistic.safetensors\?"):
        local("model.vae", str(tmp_path / "realistik.safetensors"))
    with pytest.raises(ModelError, match="did you mean tiny"):
        local("model.path", "tinny")


def test_what_the_hubs_cache_has_is_found_without_a_network(hub):
    vae = hub / "models--org--vae" / "snapshots" / COMMIT
    file = hub / "models--org--files" / "snapshots" / COMMIT / "deep/a.safetensors"
    assert cached("model.vae", "org/vae", None) == vae
    assert cached("model.base", "org/vae", None) is None, "a VAE is no model"
    assert cached("model.path", "org/files/deep/a.safetensors", None) == file
    assert fetched("model.path", "org/files/deep/a.safetensors", None, None, safety_checker=False) == file
    assert cached("model.path", "org/files/b.safetensors", None) is None


def test_what_cannot_be_downloaded_is_one_line(hub):
    with pytest.raises(ModelError, match="org/none cannot be downloaded: HF_HUB_OFFLINE is set") as told:
        fetched("model.base", "org/none", None, None, safety_checker=False)
    assert "\n" not in str(told.value) and str(told.value).endswith("; nor is there a folder org/none here")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set.*; nor is there a file no/where/x.safetensors here"):
        fetched("model.lora", "no/where/x.safetensors", None, None, safety_checker=False)


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
        ({"lora": ["mine.safetensors", "org/a/1.safetensors"]}, LORAS[:1]),
    ],
)
def test_what_is_on_the_hub_is_told_from_what_is_here(said, wants, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert wants_of(ModelConfig(**{"path": "tiny"} | said)) == wants


def test_files_that_are_here_are_not_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loras" / "mine").mkdir(parents=True)
    (tmp_path / "loras" / "mine" / "one.safetensors").touch()
    assert wants_of(ModelConfig("tiny", lora="loras/mine/one.safetensors:0.5", vae="loras/mine")) == []
    assert wants_of(ModelConfig("tiny", lora="loras/mine/missing.safetensors")) == [], "the run says what is wrong"
