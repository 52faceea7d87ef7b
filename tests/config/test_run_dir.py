"""The name of a run from its prompt files, and directories that no run can be in."""

import os
from pathlib import Path

import pytest

from batchgen.config.check import _NAME
from batchgen.config.run_dir import check_run_dir, name_of_prompts
from batchgen.errors import ConfigError, DiskFullError, from_os_error


@pytest.mark.parametrize(
    ("prompts", "name"),
    [
        ("mine.csv", "mine"),
        ("data/mine.csv.gz", "mine"),
        ("~/mine.jsonl", "mine"),
        ("my prompts (2).txt", "my_prompts_2_"),
        ("mine.v2.txt", "mine.v2"),
        ("https://host/data/mine.csv.gz?X-Amz-Signature=a/b.txt", "mine"),
        ("s3://bucket/night/*.jsonl", "night"),
        ("été.txt", "_été"),
        (".hidden.txt", "hidden"),
        ("-x.txt", "x"),
        ("☃.txt", "prompts"),
        ("a" * 300 + ".txt", "a" * 100),
        ("/data/evening/*.csv", "evening"),
        ("/data/evening/**/*.csv", "evening"),
        ("/data/e*/x.csv", "data"),
        ("/*.csv", "prompts"),
        (["b/first.txt", "b/second.txt"], "first"),
        (["/data/evening/*.csv", "more.txt"], "evening"),
    ],
)
def test_a_run_is_named_after_its_prompts(prompts: str | list[str], name: str) -> None:
    assert name_of_prompts(prompts) == name
    assert _NAME.fullmatch(name)


def test_a_glob_without_a_folder_is_named_after_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evening").mkdir()
    monkeypatch.chdir(tmp_path / "evening")
    assert name_of_prompts("*.csv") == "evening"


def refused(run_dir: Path | str, dry_run: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        check_run_dir(str(run_dir), dry_run)
    said = str(caught.value)
    assert said.startswith(f"run_dir={run_dir}: ") and said.endswith(
        "set run_dir=DIR to a directory that can be written to"
    )
    return said


@pytest.mark.parametrize("dry_run", [False, True])
def test_directories_that_cannot_be(tmp_path: Path, dry_run: bool) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("/nowhere/x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "file is a file" in refused(tmp_path / "file" / "x" / "y", dry_run)
    assert "file is a file" in refused(tmp_path / "file", dry_run)
    assert "is a link to /nowhere/x" in refused(tmp_path / "dangling", dry_run)
    assert "is a link to /nowhere/x" in refused(tmp_path / "dangling" / "y", dry_run)
    assert "loop" in refused(tmp_path / "loop" / "y", dry_run)
    assert "File name too long" in refused(tmp_path / ("x" * 300), dry_run)
    assert "longer than 255 bytes" in refused(tmp_path / "new" / ("é" * 200), dry_run)
    assert "null byte" in refused("a\0b", dry_run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "loop"]


def test_a_directory_of_a_file_system_that_makes_none() -> None:
    assert "/proc" in refused("/proc/x")


def test_a_directory_that_one_may_not_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written to" in refused(tmp_path / "new")
    assert f"{tmp_path} cannot be written to" in refused(tmp_path / "new", dry_run=True)
    assert f"{tmp_path} cannot be written to" in refused(tmp_path)
    check_run_dir(str(tmp_path), dry_run=True)  # it reads the run that is there


def test_what_can_be_made_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for run_dir in (tmp_path, tmp_path / "new", tmp_path / "a" / "b" / "c", tmp_path / "link" / "x"):
        check_run_dir(str(run_dir))
        check_run_dir(str(run_dir), dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_full_disk_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(OSError) as caught:  # noqa: PT011 (its number says which)
        check_run_dir(str(tmp_path / "new"))
    assert isinstance(from_os_error(caught.value, tmp_path), DiskFullError)
