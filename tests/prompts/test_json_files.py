"""How a JSON file holds its rows: in an array, one on each line, or in an object's array."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.prompts import Found, Reading, json_items, read_prompts
from batchgen.prompts.records import MAX_LINE_CHARS
from batchgen.types import PromptFile
from tests.prompts.reading import error_of, prompts, read, rejects, rows, write

OBJECTS = [{"prompt": "a fox", "seed": 1}, {"prompt": "a dog", "seed": 2}]
LINES = "".join(json.dumps(one) + "\n" for one in OBJECTS)
COCO = {
    "info": {"annotations": ["not these"], "year": 2017},
    "images": [{"id": 9, "width": 500, "height": 333}],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "a fox ]}"},
        {"image_id": 9, "id": 2, "caption": "a dog"},
    ],
    "licenses": [],
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson"])
@pytest.mark.parametrize(
    "content",
    [
        LINES,
        "\n\n" + LINES,
        LINES.replace("\n", "\n\n"),
        "\ufeff" + LINES,
        LINES.replace("\n", "\r\n"),
        json.dumps(OBJECTS),
        json.dumps(OBJECTS) + "\n",
        json.dumps(OBJECTS, indent=2),
        '"a fox"\n"a dog"\n',
        '["a fox",\n"a dog"]\n',
    ],
)
def test_the_content_says_how_the_rows_are_held(tmp_path: Path, suffix: str, content: str) -> None:
    assert prompts(read(write(tmp_path / f"p{suffix}", content))) == ["a fox", "a dog"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_file_of_one_row(tmp_path: Path, suffix: str) -> None:
    assert prompts(read(write(tmp_path / f"p{suffix}", '{"prompt": "a fox"}'))) == ["a fox"]


def test_a_bad_line_of_a_json_file_costs_only_that_line(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.json", '{"prompt": "a"}\n{"prompt":\n["b"]\n{"prompt": "c"}\n'))
    assert prompts(items) == ["a", None, None, "c"]
    assert [bad.line for bad in rejects(items)] == [2, 3]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**16])
@pytest.mark.parametrize("indent", [None, 2])
def test_captions_are_found_in_an_object_of_annotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_items, "_CHUNK_CHARS", chunk)
    good = rows(read(write(tmp_path / "captions.json", json.dumps(COCO, indent=indent))))
    assert [(row.prompt, row.line, row.extra) for row in good] == [
        ("a fox ]}", 1, {"image_id": 9, "id": 1}),
        ("a dog", 2, {"image_id": 9, "id": 2}),
    ]


def test_such_an_object_may_be_larger_than_a_row(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": "x" * 100} for number in range(MAX_LINE_CHARS // 100)]
    path = write(tmp_path / "captions.json", json.dumps(COCO | {"images": images}))
    assert path.stat().st_size > MAX_LINE_CHARS
    assert prompts(read(path)) == ["a fox ]}", "a dog"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"prompt": {"0": "a", "1": "b"}, "seed": {"0": 1, "1": 2}}, ["'prompt', 'seed'", "orient='records'"]),
        ({"schema": {}, "data": [{"prompt": "a"}]}, ["'schema', 'data'", "jq -c '.data[]'"]),
        ({"x.png": {"p": "a fox", "se": 1}}, ["'x.png'", "jq -c '.[]'"]),
        ({}, ["nothing"]),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_other_objects_are_refused_with_what_to_write_instead(
    tmp_path: Path, content: Any, words: list[str], indent: int | None
) -> None:
    path = write(tmp_path / "p.json", json.dumps(content, indent=indent))
    error_of(lambda: read(path), "neither a JSON array nor an object on each line", *words)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_objects_over_several_lines_are_refused_with_the_way_to_one_line(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"p{suffix}", "".join(json.dumps(one, indent=2) + "\n" for one in OBJECTS))
    error_of(lambda: read(path), "jq -c '.' FILE > NEW.jsonl")


@pytest.mark.parametrize("cut", [30, 120, 170, 200])
def test_an_object_that_is_cut_off_is_damaged(tmp_path: Path, cut: int) -> None:
    text = json.dumps(COCO, indent=1)[:-cut]
    error_of(lambda: read(write(tmp_path / "captions.json", text)), "captions.json: cannot be read")


def test_an_object_that_is_cut_off_after_its_captions_is_damaged_too(tmp_path: Path) -> None:
    path = write(tmp_path / "captions.json", json.dumps(COCO, indent=1)[:-4])
    error_of(lambda: read(path), "ends inside the object")


@pytest.mark.parametrize("chunk", [1, 7, 2**16])
@pytest.mark.parametrize("indent", [None, 2])
def test_fields_beside_the_array_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_items, "_CHUNK_CHARS", chunk)
    content = {"negative_prompt": "bad", "x": {"width": 5}, "prompts": ["a", "b"], "seed": 3}
    found = Found()
    path = write(tmp_path / "p.json", json.dumps(content, indent=indent))
    assert prompts(read_prompts([PromptFile(path)], Reading(), found=found)) == ["a", "b"]
    assert found.notes == [f"{path}: 'negative_prompt', 'seed' beside the prompts is not read: put it into each item"]


def test_members_that_are_no_fields_are_not_told(tmp_path: Path) -> None:
    found = Found()
    list(read_prompts([PromptFile(write(tmp_path / "captions.json", json.dumps(COCO)))], Reading(), found=found))
    assert found.notes == []


def test_an_earlier_plan_is_extended_by_what_its_reader_took_for_rows(tmp_path: Path) -> None:
    error_of(lambda: read(write(tmp_path / "p.json", LINES), version=1), "neither a JSON array")
    assert prompts(read(write(tmp_path / "p.jsonl", "[\n" + LINES), version=1)) == [None, "a fox", "a dog"]
