"""Which columns hold which fields of a row."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.types import Columns, Row
from tests.prompts.reading import error_of, parquet, prompts, read, rows, write


def test_prompts_are_kept_as_they_are_but_in_txt(tmp_path: Path) -> None:
    assert prompts(read(write(tmp_path / "p.txt", " \u00a0x\u2003 \t\n"))) == ["\u00a0x\u2003"]
    assert prompts(read(write(tmp_path / "p.csv", 'prompt\n  x  \n"a\n b "\n'))) == ["  x  ", "a\n b "]
    assert prompts(read(write(tmp_path / "p.jsonl", '" x\\n"\n'))) == [" x\n"]


def test_all_fields_and_extra(tmp_path: Path) -> None:
    expected = {
        "prompt": "a fox",
        "key": "k-1",
        "negative_prompt": "blur",
        "seed": 7,
        "width": 512,
        "height": 640,
        "steps": 20,
        "guidance": 4.0,
        "images_per_prompt": 2,
    }
    values: dict[str, Any] = {**expected, "guidance": 4}
    names = ",".join(values)
    cells = ",".join(f" {cell} " if isinstance(cell, int) else str(cell) for cell in values.values())
    for path, extra in (
        (write(tmp_path / "p.csv", f"{names},note,more\n{cells},,x\n"), {"note": "", "more": "x"}),
        (
            write(tmp_path / "p.jsonl", json.dumps({**values, "note": [1, {"a": None}]})),
            {"note": [1, {"a": None}]},
        ),
        (write(tmp_path / "p.json", json.dumps([{**values, "note": None}])), {"note": None}),
        (write(tmp_path / "p.parquet", parquet({name: [v] for name, v in values.items()})), {}),
    ):
        (row,) = rows(read(path))
        assert {name: getattr(row, name) for name in expected} == expected
        assert isinstance(row.guidance, float)
        assert row.extra == extra


def test_empty_cells_are_unset(tmp_path: Path) -> None:
    table = "prompt,key,negative_prompt,seed,guidance\na,,,, \n"
    line = '{"prompt": "a", "key": "", "negative_prompt": null, "seed": null, "guidance": ""}'
    for path in (write(tmp_path / "p.csv", table), write(tmp_path / "p.jsonl", line)):
        (row,) = rows(read(path))
        assert row == Row(0, 0, str(path), row.line, "a")


def test_rows_do_not_share_extra(tmp_path: Path) -> None:
    one, two = rows(read(write(tmp_path / "p.txt", "a\nb\n")))
    one.extra["x"] = 1
    assert two.extra == {}


def test_whole_number_keys_are_keys(tmp_path: Path) -> None:
    (row,) = rows(read(write(tmp_path / "p.jsonl", '{"prompt": "a", "key": 12}')))
    assert row.key == "12"


def test_cells_of_numbers_are_strict_but_for_outer_spaces(tmp_path: Path) -> None:
    good = rows(read(write(tmp_path / "p.csv", "prompt,seed,guidance\na, 007 ,1e1\n")))
    assert [(row.seed, row.guidance) for row in good] == [(7, 10.0)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text,prompt", "2"),
        ("PROMPT,Prompt", "2"),
        ("pRoMpT,text", "1"),
        ("caption,TEXT", "2"),
        ("Description,Caption", "2"),
        ("description,x", "1"),
    ],
)
def test_the_prompt_column_is_found(tmp_path: Path, header: str, expected: str) -> None:
    assert prompts(read(write(tmp_path / "p.csv", f"{header}\n1,2\n"))) == [expected]
    one, two = header.split(",")
    assert prompts(read(write(tmp_path / "p.jsonl", json.dumps({one: "1", two: "2"})))) == [expected]


def test_objects_need_not_agree_on_the_prompt_column(tmp_path: Path) -> None:
    items = read(
        write(tmp_path / "p.jsonl", '{"text": "a"}\n{"prompt": "b", "text": "t"}\n{"x": "c"}\n{"Caption": "d"}')
    )
    assert prompts(items) == ["a", "b", None, "d"]
    assert rows(items)[1].extra == {"text": "t"}


def test_named_columns(tmp_path: Path) -> None:
    columns = Columns(prompt="p q", key="prompt", seed=None)
    path = write(tmp_path / "p.csv", "prompt,p q,seed\nk1,a fox,not a number\n")
    assert rows(read(path, columns)) == [Row(0, 0, str(path), 2, "a fox", key="k1", extra={"seed": "not a number"})]
    items = read(write(tmp_path / "p.jsonl", '{"p q": "a"}\n{"prompt": "k"}\n"b"\n'), columns)
    assert prompts(items) == ["a", None, "b"]


def test_a_column_of_another_field_is_not_the_prompt(tmp_path: Path) -> None:
    columns = Columns(negative_prompt="prompt")
    (row,) = rows(read(write(tmp_path / "p.csv", "prompt,text\nblur,a fox\n"), columns))
    assert (row.prompt, row.negative_prompt) == ("a fox", "blur")
    (row,) = rows(read(write(tmp_path / "p.jsonl", '{"prompt": "blur", "text": "a fox"}'), columns))
    assert (row.prompt, row.negative_prompt) == ("a fox", "blur")


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        ("a,b\n1,2\n", Columns(), ["'a', 'b'", "job.columns.prompt"]),
        ("a,b\n", Columns(), ["'a', 'b'", "job.columns.prompt"]),
        ("prompt,b\n1,2\n", Columns(prompt="Prompt"), ["'Prompt'", "'prompt', 'b'", "job.columns.prompt"]),
        ("prompt,b,b\n", Columns(), ["two columns", "'b'"]),
        ("prompt,\x1b]0;\n", Columns(prompt="x"), ["'\\x1b]0;'"]),
        (",".join(f"c{number}" for number in range(5000)) + "\n", Columns(), ["'c0'", "and more"]),
        ("\nprompt\n", Columns(), ["header", "empty line"]),
        ('"prompt\nx\n', Columns(), ["header", "quoting"]),
        (b"prompt,\xff\nx,y\n", Columns(), ["header", "0xff"]),
        (b"prompt,\0\nx,y\n", Columns(), ["header", "NUL"]),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, content: str | bytes, columns: Columns, words: list[str]) -> None:
    path = write(tmp_path / "p.csv", content)
    assert len(error_of(lambda: read(path, columns), path, *words)) < 1_000
