"""What was measured is kept on disk."""

from pathlib import Path

import pytest

from batchgen.speed import kept
from tests.speed.test_worth import H100


def test_what_is_kept_is_found_again_and_what_is_broken_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path))
    assert kept.load("card") is None
    kept.save("card", H100)
    assert kept.load("card") == H100
    next(tmp_path.rglob("card.json")).write_text('{"eager": 1}')
    assert kept.load("card") is None


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "file"))
    kept.save("card", H100)
    assert kept.load("card") is None
