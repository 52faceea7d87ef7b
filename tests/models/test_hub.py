"""What the hub says of a repository, in one line where it refuses: the real client against a stand-in server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from batchgen.errors import DownloadError, ModelError
from batchgen.models.hub import is_commit, is_offline, look, outline
from batchgen.models.parts import parts_of
from batchgen.places import models_dir
from tests.model_hub import COMMIT, TOKEN, Hub, model_hub, reach

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with model_hub() as hub:
        reach(hub, tmp_path / "cache", monkeypatch)
        hub.add("org/model", models_dir() / "tiny_2")
        yield hub


def test_a_repository_is_known_by_commit_names_sizes_and_digests(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/model"] |= {"../out": b"", "/etc/x": b""}
    found = look("org/model", None)
    assert (found.revision, found.commit) == ("main", COMMIT) and found.folder.name == COMMIT
    assert found.files[f"{UNET}.safetensors"].size_bytes == len(hub.models["org/model"][f"{UNET}.safetensors"])
    assert found.files["unet/config.json"].sha256 is None and found.files[f"{UNET}.safetensors"].sha256
    assert not {"../out", "/etc/x"} & found.files.keys(), "no file leaves the cache"
    assert not (tmp_path / "cache").exists()
    assert is_commit(COMMIT) and not is_commit("main") and not is_commit(None)


def test_an_outline_decides_by_names_and_indexes(hub: Hub) -> None:
    files = hub.models["org/model"]
    whole = files.pop(f"{UNET}.safetensors")
    pieces = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": pieces[0], "b": pieces[1]}}
    files |= {f"unet/{piece}": whole for piece in pieces} | {
        f"{UNET}.safetensors.index.json": json.dumps(index).encode()
    }
    with outline(look("org/model", None)) as folder:
        assert folder.parts[-2:] == ("org", "model")
        [unet] = [part for part in parts_of(folder, None, False) if part.name == "unet"]
        assert {path.name for path in unet.weights} == set(pieces)
        assert {path.stat().st_size for path in unet.weights} == {0}
    assert not hub.contents() and not folder.exists()


def test_what_is_said_of_an_outline_names_the_repository(hub: Hub) -> None:
    files = hub.models["org/model"]
    files["unet/diffusion_pytorch_model.bin"] = files.pop(f"{UNET}.safetensors")
    with (
        pytest.raises(ModelError, match=r"^org/model/unet has pickled weights only"),
        outline(look("org/model", None)) as at,
    ):
        parts_of(at, None, False)
    with pytest.raises(ModelError, match=r"^org/model is not a model .*no model_index.json; choose another model$"):
        files.pop("model_index.json")
        with outline(look("org/model", None)) as at:
            parts_of(at, None, False)


@pytest.mark.parametrize(
    ("name", "revision", "token", "words"),
    [
        ("org/modle", None, None, "the hub has no such model; did you mean org/model?"),
        ("other/model", None, None, "the hub has no such model; did you mean org/model?"),
        ("a/nothing", None, None, "no such model; check the name, and if it is private, set HF_TOKEN"),
        ("org/model", "mian", None, "it has no revision mian; did you mean main?"),
        ("org/model", None, "hf_wrong", "the hub refuses the token; renew HF_TOKEN"),
        ("org/secret", None, None, "if it is private, set HF_TOKEN"),
        ("no id", None, None, "Repo id must"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, revision: str | None, token: str | None, words: str
) -> None:
    hub.add("org/secret", {})
    hub.private.add("org/secret")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError) as caught:
        look(name, revision)
    said = str(caught.value)
    assert said.startswith(f"model {name} cannot be downloaded: ") and words in said and "\n" not in said


def test_a_gated_model_needs_a_token_of_one_who_accepted_its_terms(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("org/model")
    repository = look("org/model", None)  # its files are listed to anyone
    with pytest.raises(ModelError, match=f"it is gated; accept its terms at {hub.endpoint}/org/model and set HF_TOKEN"):
        outline(repository).__enter__()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with outline(repository) as folder:
        assert (folder / "model_index.json").stat().st_size


def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="the hub cannot be reached .*check the network, then the same"):
        look("org/model", None)
    assert not is_offline()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        look("org/model", None)
    assert is_offline()


def test_what_is_left_to_fetch(hub: Hub) -> None:
    repository, name = look("org/model", None), f"{UNET}.safetensors"
    size_bytes, sha256 = repository.files[name].size_bytes, str(repository.files[name].sha256)
    assert (repository.missing([name]), repository.bytes_to_fetch([name])) == ([name], size_bytes)
    repository.part(sha256).parent.mkdir(parents=True)
    repository.part(sha256).write_bytes(b"x" * 100)
    assert repository.bytes_to_fetch([name]) == size_bytes - 100
    repository.part(sha256).rename(repository.blob(sha256))
    assert repository.bytes_to_fetch([name]) == 0, "another commit has the same content"
    other = replace(repository, commit="f" * 40)
    other.folder.joinpath("unet").mkdir(parents=True)
    (other.folder / name).touch()
    assert other.missing([name, "vae/config.json"]) == ["vae/config.json"]
