"""What settings name: here, on the hub, or neither. The hub is a cache on disk, read offline by the real client."""

import pytest

from batchgen.errors import ModelError
from batchgen.models.sources import cached, fetched, is_hub_model, local
from batchgen.places import models_dir

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
    assert fetched("model.path", "org/files/deep/a.safetensors", None) == file
    assert cached("model.path", "org/files/b.safetensors", None) is None


def test_what_cannot_be_downloaded_is_one_line(hub):
    with pytest.raises(ModelError, match="org/none cannot be downloaded: .* or set model.base to a") as told:
        fetched("model.base", "org/none", None)
    assert "\n" not in str(told.value)
