"""The checks of what a job reads and where its results go."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.schema import ModelConfig
from batchgen.evening.download import Download
from batchgen.models.find import find_model
from batchgen.site import material
from batchgen.site.findings import FAIL, OK, WARN, Finding
from batchgen.site.material import check_cache, check_copies, check_model_files, check_scratch
from tests.builders import make_config


def only(found: Iterator[Finding]) -> Finding:
    [finding] = found
    return finding


def test_a_model_that_is_here() -> None:
    found = only(check_model_files(ModelConfig(path="tiny"), "model"))
    assert found.level == OK and "readable from here" in found.what


def test_a_model_that_is_missing_or_damaged(tmp_path: Path) -> None:
    assert only(check_model_files(ModelConfig(path=str(tmp_path / "none")), "model")).level == FAIL
    tiny = find_model(ModelConfig(path="tiny"))
    assert tiny is not None
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    found = only(check_model_files(ModelConfig(path=str(folder)), "model"))
    assert found.level == FAIL and "unet" in found.what


def test_a_hub_model_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelConfig(path="nobody/nothing")
    monkeypatch.setattr(material, "in_cache", lambda _: None)
    monkeypatch.setattr(material, "to_download", lambda _: Download(None, "HF_HUB_OFFLINE is set"))
    found = only(check_model_files(model, "model"))
    assert found.level == FAIL and "HF_HUB_OFFLINE is set" in found.what and "batchgen.fetch" in found.advice
    monkeypatch.setattr(material, "to_download", lambda _: Download(5 << 30))
    found = only(check_model_files(model, "model"))
    assert found.level == WARN and "5.0 GiB are downloaded" in found.what


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    assert only(check_cache()).level == OK and list(tmp_path.iterdir()) == []
    monkeypatch.setenv("BATCHGEN_CACHE", "/proc/batchgen")
    found = only(check_cache())
    assert found.level == WARN and "BATCHGEN_CACHE" in found.advice, "a run goes on without it"


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(tmp_path)
    assert list(check_scratch(config)) == []
    config.launch.scratch = str(tmp_path / "scratch")
    found = only(check_scratch(config))
    assert found.level == OK and "free for a model of" in found.what and not (tmp_path / "scratch").exists()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        assert "cannot be locked" in only(check_scratch(config)).what
    monkeypatch.setattr(material, "model_bytes", lambda _: 1 << 60)
    assert only(check_scratch(config)).level == WARN
    config.launch.scratch = "/proc/batchgen"
    assert only(check_scratch(config)).level == FAIL
    config.launch.scratch = "$NO_SUCH_VARIABLE/batchgen"
    found = only(check_scratch(config))
    assert found.level == FAIL and "on a node" in found.advice


def test_copies(tmp_path: Path) -> None:
    assert list(check_copies(None)) == []
    assert only(check_copies(str(tmp_path / "copies"))).level == OK
    found = only(check_copies("memory://batchgen/copies"))
    assert (found.level, found.what) == (OK, "memory://batchgen/copies: a file was written, read and removed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [("nosuch://BUCKET", "is not an address that fsspec knows"), ("/proc/batchgen", "cannot be written to")],
)
def test_copies_to_a_place_that_does_not_take_them(address: str, said: str) -> None:
    found = only(check_copies(address))
    assert found.level == FAIL and said in found.what


def test_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def pipe_file(self, *_: Any) -> None:
            raise ConnectionError("Could not connect to the endpoint")

    monkeypatch.setattr(material, "filesystem", lambda *_: (Away(), "bucket"))
    found = only(check_copies("s3://bucket"))
    assert found.level == FAIL and "Could not connect" in found.what
