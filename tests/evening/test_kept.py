"""Paces that are kept on disk are read back; damage costs them and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from batchgen.evening import kept
from batchgen.evening.pace import Pace, Paces
from tests.builders import make_config

PACES = Paces(
    {"64x64 resident": Pace(((2.0, 0.5), (32.0, 3.0)), 0.1, 0.02, 1.0)}, 4.5, 0.1, 0.7, {"64x64 png": (9e3, 7)}
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_read_back_and_added_to() -> None:
    kept.keep("k", PACES)
    assert kept.load("k") == PACES and kept.load("other") == Paces()
    kept.keep("k", Paces({"96x64 resident": Pace(((2.0, 0.7),), 0.1)}, None))
    assert set(kept.load("k").sizes) == {"64x64 resident", "96x64 resident"}
    assert kept.load("k").start_s == 4.5


@pytest.mark.parametrize("content", [b"", b"{}", b'{"sizes": []}', b'{"sizes": {"a": {"pass_s": 3}}}', b"\xff"])
def test_a_damaged_file_costs_only_what_it_held(cache: Path, content: bytes) -> None:
    kept.keep("k", PACES)
    [path] = (cache / "paces").iterdir()
    path.write_bytes(content)
    assert kept.load("k") == Paces()
    kept.keep("k", PACES)
    assert kept.load("k") == PACES


def test_a_cache_that_cannot_be_written_ends_nothing(cache: Path) -> None:
    cache.write_text("a file")
    kept.keep("k", PACES)
    assert kept.load("k") == Paces()


@pytest.mark.parametrize("change", [{"job__scheduler": "euler"}, {"speed__channels_last": True}])
def test_another_way_of_computing_has_paces_of_its_own(tmp_path: Path, change: dict[str, Any]) -> None:
    here = kept.key_of(make_config(tmp_path), "model", "cpu", "fp32")
    assert kept.key_of(make_config(tmp_path, **change), "model", "cpu", "fp32") != here
    assert kept.key_of(make_config(tmp_path), "other model", "cpu", "fp32") != here
    assert kept.key_of(make_config(tmp_path), "model", "a GPU", "fp32") != here
    assert kept.key_of(make_config(tmp_path, job__seed=9, launch__workers=2), "model", "cpu", "fp32") == here
