"""Where files are that belong to no run."""

from pathlib import Path

import pytest

from batchgen.places import cache_dir, models_dir, site_file


def test_the_environment_names_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BATCHGEN_SITE", str(tmp_path / "site.yaml"))
    assert (cache_dir(), site_file()) == (tmp_path / "cache", tmp_path / "site.yaml")


def test_without_it_they_are_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHGEN_CACHE")
    monkeypatch.delenv("BATCHGEN_SITE", raising=False)
    assert cache_dir().parts[-1] == "batchgen"
    assert site_file().parts[-2:] == ("batchgen", "site.yaml")


def test_the_bundled_models_are_there() -> None:
    assert (models_dir() / "tiny_2" / "model_index.json").is_file()
