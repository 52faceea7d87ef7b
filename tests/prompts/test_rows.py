"""Which columns hold which fields of a row."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchgen.types import Columns, Reject, Row
from tests.prompts.reading import error_of, parquet, prompts, read, rejects, rows, write


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
        "lora": "a.safetensors:0.5+b.safetensors",
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


def test_a_rows_lora_may_be_a_list_and_must_be_written_as_such(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a", "lora": ["a.safetensors:2", "b.safetensors"]}, {"prompt": "b", "LoRAs": "<none>"},
        {"prompt": "c", "lora": "a.safetensors:much"}, {"prompt": "d", "lora": 7}, {"prompt": "e", "lora": None},
    ]  # fmt: skip
    found = read(write(tmp_path / "p.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    assert [one.lora if isinstance(one, Row) else None for one in found] == [
        "a.safetensors:2+b.safetensors", "<none>", None, None, None,
    ]  # fmt: skip
    weight, number = (one.reason for one in found if isinstance(one, Reject))
    assert "weight must be a number" in weight and "job.columns.lora=null ignores the column" in weight
    assert number.startswith("lora must be text, got 7")


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
        ('"prompt\nx\n', Columns(), ["header", "quoting"]),
        (b"prompt,\xff\nx,y\n", Columns(), ["header", "0xff"]),
        (b"prompt,\0\nx,y\n", Columns(), ["header", "NUL"]),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, content: str | bytes, columns: Columns, words: list[str]) -> None:
    path = write(tmp_path / "p.csv", content)
    assert len(error_of(lambda: read(path, columns), path, *words)) < 1_000


def test_numbers_as_programs_write_them(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "p.csv", "prompt,seed,width,height\na red car,1.0,128.0,128.0\na cat,,,\n"),
        write(
            tmp_path / "p.jsonl",
            '{"prompt": "a red car", "seed": 1.0, "width": "128", "height": "128.0"}\n'
            '{"prompt": "a cat", "seed": null, "width": NaN, "height": ""}\n',
        ),
        write(tmp_path / "p.parquet", parquet({"prompt": ["a red car", "a cat"], "seed": ["1", None],
                                               "width": [128.0, float("nan")], "height": [128.0, None]})),
    ):  # fmt: skip
        got = [(row.prompt, row.seed, row.width, row.height) for row in rows(read(path))]
        assert got == [("a red car", 1, 128, 128), ("a cat", None, None, None)]


def test_seeds_of_64_bits_are_taken_modulo_and_kept(tmp_path: Path) -> None:
    seeds = [2**50 + 3, 2**32, 2**64 - 1, 2**32 - 1]
    table = {"prompt": ["a"] * 4, "Seed": seeds}
    lines = "".join(json.dumps({"prompt": "a", "Seed": seed}) + "\n" for seed in seeds)
    cells = "prompt,Seed\n" + "".join(f"a,{seed}\n" for seed in seeds)
    pa = pytest.importorskip("pyarrow")
    for path in (
        write(tmp_path / "p.jsonl", lines),
        write(tmp_path / "p.csv", cells),
        write(tmp_path / "p.parquet", parquet(table | {"Seed": pa.array(seeds, pa.uint64())})),
    ):
        got = rows(read(path))
        assert [row.seed for row in got] == [3, 0, 2**32 - 1, 2**32 - 1]
        assert [row.extra for row in got] == [{"Seed": seeds[0]}, {"Seed": seeds[1]}, {"Seed": seeds[2]}, {}]


def test_a_seed_of_minus_one_means_any_seed(tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "p.csv", "prompt,seed\na,-1\n"),
        write(tmp_path / "p.jsonl", '{"prompt": "a", "seed": -1}'),
    ):
        (row,) = rows(read(path))
        assert (row.seed, row.extra) == (None, {})


def test_a_list_of_captions_makes_a_row_for_each(tmp_path: Path) -> None:
    line = {"caption": ["a red car", "", "a shiny car", None], "seed": 5, "note": "x"}
    one, two = rows(read(write(tmp_path / "p.jsonl", json.dumps(line))))
    assert (one.prompt, one.caption, one.captions, one.seed) == ("a red car", 0, 4, 5)
    assert (two.prompt, two.caption, two.captions, two.seed) == ("a shiny car", 2, 4, 5)
    assert (one.row, one.line) == (two.row, two.line) == (0, 1)
    one.extra["x"] = 1
    assert two.extra == {"note": "x"}


def test_a_caption_that_cannot_be_used_costs_no_other(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.jsonl", '{"caption": ["a", 5, "b"]}'))
    assert prompts(items) == ["a", None, "b"]
    assert rejects(items)[0].reason == "caption 2: prompt must be text, got 5"


@pytest.mark.parametrize(
    "annotations",
    [
        [{"caption": "a", "id": 1}, {"caption": "b", "id": 2}],
        {"caption": ["a", "b"], "id": [1, 2]},  # as `datasets` has it
        ["a", "b"],
    ],
)
def test_captions_are_found_under_annotations(tmp_path: Path, annotations: Any) -> None:
    record = {"image_id": 7, "annotations": annotations}
    paths = [write(tmp_path / "p.jsonl", json.dumps(record)), write(tmp_path / "p.json", json.dumps([record]))]
    paths.append(write(tmp_path / "p.parquet", parquet({"image_id": [7], "annotations": [annotations]})))
    for path in paths:
        got = rows(read(path))
        assert [(row.prompt, row.extra) for row in got] == [("a", {"image_id": 7}), ("b", {"image_id": 7})]
    (whole,) = rows(read(write(tmp_path / "p.jsonl", json.dumps(record | {"caption": "c"}))))
    assert (whole.prompt, whole.extra["annotations"]) == ("c", annotations), "a caption of its own comes first"


def test_numbers_that_json_does_not_have_are_taken_as_from_parquet(tmp_path: Path) -> None:
    numbers = '{"prompt": "a", "score": NaN, "peak": Infinity, "low": [-Infinity], "seed": NaN}'
    (row,) = rows(read(write(tmp_path / "p.jsonl", numbers)))
    assert (row.seed, row.extra) == (None, {"score": None, "peak": "inf", "low": ["-inf"]})
    json.dumps(row.extra, allow_nan=False)


def test_marks_and_blank_lines_and_comments_within_a_file(tmp_path: Path) -> None:
    text = "\ufeffa red car\n\n\ufeffa cat\n \t\n# a list\n"
    path = write(tmp_path / "p.txt", text)
    assert [(row.prompt, row.row) for row in rows(read(path))] == [("a red car", 0), ("a cat", 2), ("# a list", 4)]
    assert [row.prompt for row in rows(read(path, comment="#"))] == ["a red car", "a cat"]
    assert not rejects(read(path))
    objects = '\ufeff{"prompt": "a"}\n\n\ufeff"b"\n#\n'
    assert prompts(read(write(tmp_path / "p.jsonl", objects), comment="#")) == ["a", "b"]
    assert rows(read(path, version=1))[1].prompt == "\ufeffa cat", "an earlier plan keeps to its text, and so its seed"


COLUMNS = Columns(seed="zzz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "prompt,seed\na,1\n"),
        ("p.jsonl", '{"prompt": "a", "seed": 1}\n{"prompt": "b"}\n'),
        ("p.json", '[{"prompt": "a"}]'),
    ],
)
def test_a_column_that_the_job_names_must_be_there(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path / name, content)
    error_of(
        lambda: read(path, COLUMNS),
        path,
        "job.columns.seed=zzz: there is no such column",
        "correct the name, or set job.columns.seed=null",
    )
    assert len(rows(read(path, COLUMNS, version=1))) > 0
    assert len(rows(read(path))) > 0


def test_one_object_with_it_is_enough_and_bare_prompts_have_no_columns(tmp_path: Path) -> None:
    objects = '{"prompt": "a"}\n{"prompt": "b", "zzz": 5}\n{"prompt": "c"}\n'
    assert [row.seed for row in rows(read(write(tmp_path / "p.jsonl", objects), COLUMNS))] == [None, 5, None]
    assert prompts(read(write(tmp_path / "p.txt", "a\n"), COLUMNS)) == ["a"]
    assert prompts(read(write(tmp_path / "p.json", '["a"]'), COLUMNS)) == ["a"]
