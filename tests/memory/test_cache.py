"""Figures kept on disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.memory import cache
from tests.memory.cards import sd15_512


def test_kept_figures_come_back_and_damaged_ones_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path))
    figures = sd15_512()
    assert cache.load("one") is None
    cache.save("one", figures)
    assert cache.load("one") == figures
    cache.save("one", replace(figures, encode_bytes=7))
    assert cache.load("one") == replace(figures, encode_bytes=7)
    (path,) = (tmp_path / "figures").iterdir()
    for damaged in ("", "[]", "{}", path.read_text()[:-20], path.read_text().replace("pass_s", "other")):
        path.write_text(damaged)
        assert cache.load("one") is None


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "file"))
    cache.save("one", sd15_512())
    assert cache.load("one") is None
