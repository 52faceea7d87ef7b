"""What a worker imports is noted once, and read ahead at the next start."""

import json
import sys
from pathlib import Path

import pytest

from batchgen.machine import imported
from batchgen.machine.imported import note, noted


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHGEN_CACHE", str(tmp_path / "cache"))


def test_what_is_imported_is_noted_as_it_is_read(tmp_path: Path) -> None:
    assert noted() == []
    note()
    spec = json.__spec__
    assert spec is not None and spec.cached is not None and spec.origin is not None
    assert Path(spec.cached if Path(spec.cached).exists() else spec.origin) in noted()
    assert len(set(noted())) == len(noted()) > 100


def test_sources_that_transformers_looks_through_are_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clip/modeling_clip.py", "t5/modeling_t5.py"):
        (tmp_path / "models" / name).parent.mkdir(parents=True)
        (tmp_path / "models" / name).touch()
    fake = type(sys)("transformers")
    fake.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, "transformers", fake)
    note()
    assert {tmp_path / "models/clip/modeling_clip.py", tmp_path / "models/t5/modeling_t5.py"} <= set(noted())


def test_a_note_stays_and_other_versions_have_another(monkeypatch: pytest.MonkeyPatch) -> None:
    note()
    monkeypatch.setattr(imported, "_files", lambda: iter(["/elsewhere"]))
    note()
    assert Path("/elsewhere") not in noted()
    monkeypatch.setattr(imported, "versions", lambda: {"torch": "99"})
    assert noted() == []
    note()
    assert noted() == [Path("/elsewhere")]


def test_a_note_that_is_damaged_or_cannot_be_written_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note()
    (path,) = (tmp_path / "cache" / "imports").iterdir()
    path.write_text("[")
    assert noted() == []
    monkeypatch.setenv("BATCHGEN_CACHE", "/proc/none")
    note()
    assert noted() == []
