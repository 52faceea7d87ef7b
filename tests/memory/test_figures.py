"""Figures: kept on disk, and seconds between what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from batchgen.memory import cache
from batchgen.memory.figures import at, call_s
from tests.memory.cards import sd15_512


@pytest.mark.parametrize(("amount", "seconds"), [(2, 1.0), (4, 1.5), (6, 2.0), (12, 4.0), (1, 0.5), (0.1, 0.2)])
def test_seconds_lie_on_lines_and_beyond_grow_in_proportion(amount: float, seconds: float) -> None:
    assert at(((2, 1.0), (6, 2.0)), amount) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("pixels", "count", "seconds"), [(4, 1, 1.0), (4, 2, 1.5), (8, 2, 3.0), (16, 1, 9.0), (2, 1, 0.5)]
)
def test_a_call_takes_what_the_next_smaller_piece_did(pixels: int, count: int, seconds: float) -> None:
    pieces = ((4, ((1, 1.0), (2, 1.5))), (16, ((1, 9.0),)))
    assert call_s(pieces, pixels, count) == pytest.approx(seconds)


def test_kept_figures_come_back_and_damaged_ones_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "file"))
    cache.save("one", sd15_512())
    assert cache.load("one") is None
