"""The prompt files of a run: the same, moved, grown, new or lost; and what was put behind the planned bytes."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.schema import JobConfig
from batchgen.plan.inputs import Growth, Input, growth, inputs_of, match_inputs, newest, numbers_of, row_reader
from batchgen.types import PromptFile

READ = row_reader(JobConfig())


def prompt_files(folder: Path, **contents: str) -> list[Input]:
    """Files by name without .txt."""
    for name, content in contents.items():
        (folder / f"{name}.txt").write_text(content)
    return inputs_of([PromptFile(folder / f"{name}.txt") for name in contents])


def test_inputs_are_known_by_bytes_and_digest(tmp_path: Path) -> None:
    one = prompt_files(tmp_path, a="fox\n")[0].entry
    assert (one["file"], one["bytes"], len(one["sha256"])) == (str(tmp_path / "a.txt"), 4, 64)


@pytest.mark.parametrize(
    ("new", "numbers", "grown", "lost"),
    [
        ({"a": "fox", "b": "hen"}, [0, 1], [], []),
        ({"b": "hen", "a": "fox"}, [1, 0], [], []),
        ({"c": "fox", "b": "hen"}, [0, 1], [], []),
        ({"a": "fox", "b": "hen", "c": "owl"}, [0, 1, None], [], []),
        ({"c": "fox", "a": "fox", "b": "hen"}, [None, 0, 1], [], []),
        ({"a": "fox"}, [0], [], [1]),
        ({"a": "fox", "b": "her"}, [0, None], [], [1]),
        ({"a": "fox", "c": "owl"}, [0, None], [], [1]),
        ({"a": "fox\nowl", "b": "hen"}, [0, 1], [0], []),
        ({"b": "hen\nowl", "c": "fox\nowl"}, [1, 0], [0, 1], []),
        ({"a": "hen\nowl", "b": "fox\nowl"}, [None, None], [], [0, 1]),
    ],
    ids=[
        "same", "other order", "moved", "added", "copy added", "gone", "edited", "another instead", "grown",
        "grown and moved", "exchanged",
    ],
)  # fmt: skip
def test_each_planned_file_is_found_by_its_content(
    tmp_path: Path, new: dict[str, str], numbers: list[int | None], grown: list[int], lost: list[int]
) -> None:
    old = [one.entry for one in prompt_files(tmp_path, a="fox", b="hen")]
    for path in tmp_path.iterdir():
        path.unlink()
    found = match_inputs(old, prompt_files(tmp_path, **new))
    assert (list(found.numbers), list(found.grown), list(found.lost)) == (numbers, grown, lost)


def test_an_extension_continues_files_and_adds_others() -> None:
    first: list[dict[str, Any]] = [{"file": "a", "sha256": "1"}, {"file": "b", "sha256": "2"}]
    second: list[dict[str, Any]] = [{"file": "a", "sha256": "3", "continues": 0}, {"file": "c", "sha256": "4"}]
    third: list[dict[str, Any]] = [{"file": "d", "sha256": "5"}, {"file": "moved", "sha256": "6", "continues": 2}]
    assert numbers_of([first, second, third]) == [[0, 1], [0, 2], [3, 2]]
    latest = [(one["file"], one["sha256"]) for one in newest([first, second, third])]
    assert latest == [("a", "3"), ("b", "2"), ("moved", "6"), ("d", "5")]
    assert not any("continues" in one for one in newest([first, second, third]))


@pytest.mark.parametrize(
    ("suffix", "before", "after", "expected"),
    [
        (".txt", "a\nb\n", "c\n", Growth(None, True)),
        (".txt", "a\nb", "\nc\n", Growth(None, True)),
        (".txt", "a\nb", "\n", Growth(None, False)),
        (".txt", "a\nb", "c\nd\n", Growth(2, False)),
        (".txt", "", "a\n", Growth(None, True)),
        (".csv", "prompt,steps\na,2\nb,2", "5\nc,2\n", Growth(3, False)),
        (".csv", 'prompt,steps\na,2\n"b,2\n', 'c",3\n', Growth(3, False)),
        (".csv", 'prompt,steps\na,2\n"b\nb",2\n', "c,3\n", Growth(None, True)),
        (".jsonl", '{"prompt":"a"}\n', '{"prompt":"b"}\n', Growth(None, True)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_the_added_bytes_change_is_told(
    tmp_path: Path, suffix: str, before: str, after: str, expected: Growth, packed: bool
) -> None:
    path = tmp_path / f"p{suffix}{'.gz' * packed}"
    first, more = (gzip.compress(text.encode()) if packed else text.encode() for text in (before, after))
    path.write_bytes(first)
    planned = [one.entry for one in inputs_of([PromptFile(path)])]
    path.write_bytes(first + more)
    found = match_inputs(planned, inputs_of([PromptFile(path)]))
    assert (found.grown, found.lost) == ((0,), ())
    assert growth(PromptFile(path), planned[0]["bytes"], READ) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_lines_are_those_of_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "p.txt"
    whole = "käse\nbär\nfox\n".encode(encoding)
    cut = whole.index("f".encode(encoding.replace("utf-16", "utf-16-le").removesuffix("-sig")))
    path.write_bytes(whole)
    read = row_reader(JobConfig(encoding=encoding))
    assert growth(PromptFile(path), cut, read) == Growth(None, True)
    assert growth(PromptFile(path), cut - 2, read) == Growth(None if encoding == "utf-16" else 2, encoding == "utf-16")


def test_json_and_parquet_never_grow(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("[]")
    planned = [one.entry for one in inputs_of([PromptFile(path)])]
    path.write_text('[]\n["a"]')
    assert match_inputs(planned, inputs_of([PromptFile(path)])).lost == (0,)
