"""Where a file of one's own sets a key, and what Hydra puts before its keys. Its mistakes are in test_explain.py."""

from pathlib import Path

import pytest

from batchgen.config.own_files import OwnFile


@pytest.mark.parametrize(
    ("name", "text", "key", "line"),
    [
        ("job/venus", "# @package _global_\njob:\n  steps: 3\n", "job.steps", 3),
        ("job/venus", "steps: 3\n", "job.steps", 1),
        ("job/venus", "# @package job\n\nsteps: 3\n", "job.steps", 3),
        ("job/venus", "# @package _group_\nsteps: 3\n", "job.steps", 2),
        ("mine", "job: {steps: 3}\n", "job.steps", 1),
        ("policies/small", "# @package memory.policy\ntile_px: 512\n", "memory.policy.tile_px", 2),
        ("job/venus", "steps: 3\n", "job.width", None),
        ("job/venus", "steps: [\n", "job.steps", None),
        ("job/venus", "- steps\n", "job.steps", None),
    ],
)
def test_where_a_key_is_set(tmp_path: Path, name: str, text: str, key: str, line: int | None) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert OwnFile(path, name).place(key) == (f"{path}:{line}" if line else None)


def test_a_file_without_mistakes_has_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# @package _global_\ndefaults:\n  - override /model: sdxl\n  - _self_\njob:\n  steps: 3\n")
    assert OwnFile(path, "job/x").problem() is None


def test_a_path_is_shown_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert OwnFile(tmp_path / "here" / "job" / "x.yaml", "job/x").shown == "job/x.yaml"
    assert OwnFile(tmp_path / "x.yaml", "x").shown == str(tmp_path / "x.yaml")
