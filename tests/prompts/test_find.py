"""Which prompt files paths and globs name."""

from pathlib import Path

import pytest

from batchgen.prompts import find_files
from batchgen.types import PromptFile
from tests.prompts.reading import error_of


def test_find_files_keeps_the_order_sorts_globs_and_drops_repeats(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.csv", "sub/deep/d.JSONL.gz", "z.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.txt").symlink_to("a.txt")
    found = find_files(["z.tsv", "*.txt", str(tmp_path / "a.txt"), "sub/**"], tmp_path)
    assert [file.path for file in found] == [
        tmp_path / name for name in ("z.tsv", "a.txt", "b.txt", "sub/c.csv", "sub/deep/d.JSONL.gz")
    ]


def test_find_files_expands_home_and_takes_magic_names_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a[1].txt").touch()
    assert find_files(["~/a[1].txt"], Path("/")) == [PromptFile(tmp_path / "a[1].txt")]
    assert find_files(["~/*.txt"], Path("/")) == [PromptFile(tmp_path / "a[1].txt")]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("promts.csv", ["promts.csv", "HERE", "prompts.csv"]),
        ("nowhere/x.csv", ["nowhere/x.csv", "HERE/nowhere", "No such file"]),
        ("*.jsonl", ["matches *.jsonl", "HERE"]),
        ("notes.md", ["notes.md", ".csv or .jsonl"]),
        ("folder.txt", ["folder.txt", "not a file"]),
        ("folder*", ["matches folder*"]),
        ("", ["not a file"]),
        ("a\0*.txt", ["matches"]),
        ("a\n\x1b[2J.txt", ["\\n\\x1b"]),
        ("~nobody-of-this-name/x.txt", ["~nobody-of-this-name"]),
    ],
)
def test_find_files_errors(tmp_path: Path, pattern: str, words: list[str]) -> None:
    (tmp_path / "prompts.csv").touch()
    (tmp_path / "notes.md").touch()
    (tmp_path / "folder.txt").mkdir()
    error_of(lambda: find_files([pattern], tmp_path), *(word.replace("HERE", str(tmp_path)) for word in words))
