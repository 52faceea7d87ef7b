"""What to do with files that are not read as they are meant, and that it helps."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from batchgen.errors import PromptError
from batchgen.prompts import Found, Reading, find_files, read_prompts
from batchgen.prompts.advice import header_advice, jq_path, object_advice, text_note, unread_folder, unread_kind
from batchgen.types import Columns, PromptFile
from tests.prompts.reading import error_of, parquet, prompts, read, write


def notes_of(path: Path) -> list[str]:
    found = Found()
    list(read_prompts([PromptFile(path)], Reading(), found=found))
    return found.notes


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("image,caption\n1.jpg,a fox\n", ".csv"),
        ("id\tPrompt\n1\ta fox\n", ".tsv"),
        ('"id";"text"\n1;a fox\n', ".csv"),
        ('\n{"prompt": "a fox"}\n', ".jsonl"),
    ],
)
def test_a_text_that_looks_like_a_table_is_told_and_reads_right_by_the_advice(
    tmp_path: Path, content: str, suffix: str
) -> None:
    path = write(tmp_path / "p.txt", content)
    (note,) = notes_of(path)
    assert f"rename it to {suffix}" in note and "p.txt" in note
    path = path.rename(path.with_suffix(suffix))
    assert prompts(read(path)) == ["a fox"] and notes_of(path) == []


@pytest.mark.parametrize(
    "line", ["a fox, red", "text", "{a|b} fox", '{"a": [', "a captioned, texted fox", "", "a\rb,c"]
)
def test_a_text_is_not_taken_for_a_table(line: str) -> None:
    assert text_note(line) is None


def test_a_very_long_line_is_no_table() -> None:
    assert text_note("x" * 2**20) is None


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".csv", ";")])
@pytest.mark.parametrize("cells", [["a very typical red bus", "http://x/1", "5"], ["id", "a red fox", "b"]])
def test_the_line_that_names_all_columns_makes_the_first_row_a_row(
    tmp_path: Path, suffix: str, separator: str, cells: list[str]
) -> None:
    row = separator.join(cells) + "\n"
    message = error_of(lambda: read(write(tmp_path / f"p{suffix}", row)), "put a line with the names of all 3 columns")
    line = message.split("such as ")[1].split(", before")[0].replace("<TAB>", "\t")
    assert prompts(read(write(tmp_path / f"q{suffix}", line + "\n" + row))) == [
        max(cells, key=lambda one: len(one.split()))
    ]
    assert ("job.columns.prompt" in message) == (cells[0] == "id") and ".txt" not in message


def test_one_column_needs_one_name_and_parquet_none(tmp_path: Path) -> None:
    error_of(lambda: read(write(tmp_path / "p.csv", "a red fox in the snow\n")), "put the line prompt before it")
    message = error_of(lambda: read(write(tmp_path / "p.parquet", parquet({"a": ["x"]}))), "job.columns.prompt=NAME")
    assert "line" not in message


def test_columns_without_a_name_or_too_many_of_them_are_not_shown_as_a_line() -> None:
    assert "such as" not in header_advice(["a", "b"], ",", whole=False)
    assert "all 20 columns, with prompt among them" in header_advice(list("abcdefghijklmnopqrst"), ",", whole=True)


@pytest.mark.parametrize("name", ["'prompt'", "`Prompt`", "my prompt", "image_caption", "prompt's $x", "texte é"])
def test_the_override_that_is_shown_names_the_column(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "p.csv", f"id,{name}\n1,a fox\n")
    message = error_of(lambda: read(path))
    words = message.split("; set ")[1].split(", or, if")[0]
    (word,) = shlex.split(words)
    column: Any = OverridesParser.create().parse_override(word).value()
    assert prompts(read(path, Columns(prompt=str(column)))) == ["a fox"]


@pytest.mark.parametrize(
    ("content", "program"),
    [
        ({"schema": {}, "data": [{"prompt": "a fox"}]}, ".data[]"),
        ({"licenses": [{"id": 1}], "my rows": [{"id": 5, "caption": "a fox"}]}, '.["my rows"][]'),
        ({"it's": [{"prompt": "a fox"}]}, '.["it\'s"][]'),
        ({"x/1.png": {"caption": "a fox", "tags": "b"}}, ".[]"),
        ({"1.png": "a fox"}, ".[]"),
        ({"1.png": ["a fox"]}, ".[][]"),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_jq_writes_what_can_be_read(tmp_path: Path, content: Any, program: str, indent: int | None) -> None:
    path = write(tmp_path / "p.json", json.dumps(content, indent=indent))
    message = error_of(lambda: read(path), "jq -c ")
    words = shlex.split(message.split("; ")[1].split(" > NEW.jsonl")[0])
    assert words == ["jq", "-c", program, "FILE"]
    try:
        made = subprocess.run(["jq", "-c", program, str(path)], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("needs jq")
    assert prompts(read(write(tmp_path / "new.jsonl", made))) == ["a fox"]


@pytest.mark.parametrize(
    "members", [{"prompt": '{"0": "a"}', "seed": "{}"}, {"columns": "[", "index": "[", "data": '[["a"]]'}]
)
def test_what_pandas_writes_by_itself_is_told_the_way_of_pandas(members: dict[str, str]) -> None:
    assert "to_json(orient='records', lines=True)" in object_advice(members) and "jq" not in object_advice(members)


def test_jq_names_members() -> None:
    assert (jq_path("a_1"), jq_path("1a"), jq_path('a"b')) == (".a_1", '.["1a"]', '.["a\\"b"]')


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        (".zip", "unpack it"),
        (".xlsx", "save it as CSV UTF-8"),
        (".arrow", "to_parquet("),
        (".feather", "pandas.read_feather("),
        (".pkl", ".csv or .jsonl"),
        (".yaml", ".csv or .jsonl"),
        (".md", ".csv or .jsonl"),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_helps(tmp_path: Path, suffix: str, words: str) -> None:
    assert words in str(unread_kind(suffix))
    error_of(lambda: find_files([str(write(tmp_path / f"p{suffix}", "x"))], tmp_path), f"p{suffix}: ", words)


def test_a_folder_of_datasets_is_refused_with_what_writes_a_file(tmp_path: Path) -> None:
    assert "name the files in it" in unread_folder(tmp_path)
    write(tmp_path / "dataset_info.json", "{}")
    with pytest.raises(PromptError, match="load_from_disk.'FOLDER'..to_parquet"):
        find_files([str(tmp_path)], tmp_path)
    write(tmp_path / "dataset_dict.json", "{}")
    assert "['train'].to_parquet" in unread_folder(tmp_path)
