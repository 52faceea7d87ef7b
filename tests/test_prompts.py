"""Prompt files: every format, every way in which a row or file is bad, and the neighbours of a bad row."""

import codecs
import datetime
import decimal
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.bounds import MAX_PROMPT_CHARS, SEED_LIMIT
from batchgen.errors import PromptError
from batchgen.prompts import find_files, json_items, read_prompts
from batchgen.prompts.records import MAX_LINE_CHARS
from batchgen.prompts.tables import MAX_RECORD_LINES
from batchgen.types import Columns, Reject, Row

Item = Row | Reject


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(columns: dict[str, Any]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def read(path: Path, columns: Columns | None = None, encoding: str = "utf-8-sig") -> list[Item]:
    return list(read_prompts([path], columns or Columns(), encoding))


def prompts(items: Iterable[Item]) -> list[str | None]:
    return [item.prompt if isinstance(item, Row) else None for item in items]


def rows(items: Iterable[Item]) -> list[Row]:
    return [item for item in items if isinstance(item, Row)]


def rejects(items: Iterable[Item]) -> list[Reject]:
    return [item for item in items if isinstance(item, Reject)]


def error_of(call: Callable[[], object], *words: object) -> str:
    with pytest.raises(PromptError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable(), "a message must be one line that cannot move the cursor"
    for word in words:
        assert str(word) in message
    return message


# ---------------------------------------------------------------------------------------- find_files


def test_find_files_keeps_the_order_sorts_globs_and_drops_repeats(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.csv", "sub/deep/d.JSONL.gz", "z.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.txt").symlink_to("a.txt")
    found = find_files(["z.tsv", "*.txt", str(tmp_path / "a.txt"), "sub/**"], tmp_path)
    assert found == [tmp_path / name for name in ("z.tsv", "a.txt", "b.txt", "sub/c.csv", "sub/deep/d.JSONL.gz")]


def test_find_files_expands_home_and_takes_magic_names_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a[1].txt").touch()
    assert find_files(["~/a[1].txt"], Path("/")) == [tmp_path / "a[1].txt"]
    assert find_files(["~/*.txt"], Path("/")) == [tmp_path / "a[1].txt"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("promts.csv", ["promts.csv", "HERE", "prompts.csv"]),
        ("nowhere/x.csv", ["nowhere/x.csv", "HERE/nowhere", "No such file"]),
        ("*.jsonl", ["matches *.jsonl", "HERE"]),
        ("notes.md", ["notes.md", "suffix", ".parquet", ".gz"]),
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


# ---------------------------------------------------------------------------------------- the formats

CONTENTS: dict[str, Callable[[], str | bytes]] = {
    ".txt": lambda: "  a fox \na dog\r\n\ta cat\t",
    ".csv": lambda: 'id,prompt\n1,a fox\n2,"a dog"\n3,a cat\n',
    ".tsv": lambda: "prompt\tid\na fox\t1\na dog\t2\na cat\t3",
    ".json": lambda: '["a fox", {"prompt": "a dog"},\n\n {"x": [1, "]"], "prompt": "a cat"}]\n',
    ".jsonl": lambda: '"a fox"\n{"prompt": "a dog"}\n{"x": [1], "prompt": "a cat"}\n',
    ".ndjson": lambda: '"a fox"\n{"prompt": "a dog"}\n{"x": [1], "prompt": "a cat"}',
    ".parquet": lambda: parquet({"id": [1, 2, 3], "prompt": ["a fox", "a dog", "a cat"]}),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_every_format(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = write(tmp_path / f"p{suffix}{'.gz' if zipped else ''}", CONTENTS[suffix]())
    items = read(path)
    assert prompts(items) == ["a fox", "a dog", "a cat"]
    first_line = 2 if suffix in (".csv", ".tsv") else 1
    for place, row in enumerate(rows(items)):
        assert (row.file, row.row, row.line, row.source) == (0, place, first_line + place, str(path))
    assert read(write(path, b"")) == []


def test_files_are_numbered_from_first_file(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.txt", "x\n\ny"), write(tmp_path / "b.txt", "z")]
    items = list(read_prompts(files, Columns(), first_file=5))
    assert [(row.file, row.row, row.line) for row in rows(items)] == [(5, 0, 1), (5, 2, 3), (6, 0, 1)]
    assert rejects(items) == [Reject(str(files[0]), 2, "empty prompt")]


def test_lines_end_only_at_newlines_and_returns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", "a\x0bb\x0cc\x1cd\x85e\u2028f\rg\r\nh\ni")
    assert prompts(read(path)) == ["a\x0bb\x0cc\x1cd\x85e\u2028f", "g", "h", "i"]


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


# ---------------------------------------------------------------------------------------- columns


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


def test_two_fields_cannot_name_one_column() -> None:
    error_of(lambda: read_prompts([], Columns(prompt="seed")), "'seed'", "job.columns")


# ---------------------------------------------------------------------------------------- encodings

TEXT = "a fox\nun café\n日本 🦊\n"


@pytest.mark.parametrize(
    ("bom", "codec", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF8, "utf-8", "utf-8"),
        (b"", "utf-8", "utf-8-sig"),
        (b"", "utf-8", "UTF8"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-8-sig"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-8"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-8-sig"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16-le"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32-le"),
        (b"", "utf-16-be", "utf-16-be"),
        (b"", "gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_encodings_and_byte_order_marks(tmp_path: Path, bom: bytes, codec: str, encoding: str, suffix: str) -> None:
    path = write(tmp_path / f"p{suffix}", bom + TEXT.encode(codec))
    assert prompts(read(path, encoding=encoding)) == ["a fox", "un café", "日本 🦊"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_other_formats_use_the_encoding_too(tmp_path: Path, suffix: str) -> None:
    content = {".json": '["né"]', ".jsonl": '"né"'}.get(suffix, "prompt\nné\n")
    for number, data in enumerate((codecs.BOM_UTF8 + content.encode(), content.encode("utf-16"))):
        assert prompts(read(write(tmp_path / f"{number}{suffix}", data))) == ["né"]
    assert prompts(read(write(tmp_path / f"l{suffix}", content.encode("latin-1")), encoding="latin-1")) == ["né"]


def test_a_file_of_nothing_but_a_mark_is_empty(tmp_path: Path) -> None:
    assert read(write(tmp_path / "p.csv", codecs.BOM_UTF8)) == []


@pytest.mark.parametrize("encoding", ["no-such-code", "hex", "rot13", "a\0b", "undefined", "\x1b[2J"])
def test_unknown_encodings(encoding: str) -> None:
    error_of(lambda: read_prompts([], Columns(), encoding), "job.encoding")


@pytest.mark.parametrize(
    ("data", "codec"), [(b"a\0\n\0b", "utf-16-le"), (b"\0\xd8a\0", "utf-16-le"), (b"abc", "utf-32")]
)
def test_encodings_that_cannot_pass_over_a_bad_byte(tmp_path: Path, data: bytes, codec: str) -> None:
    path = write(tmp_path / "p.txt", data)
    error_of(lambda: read(path, encoding=codec), path, "job.encoding")


# ---------------------------------------------------------------------------------------- bad rows

Cases = list[tuple[bytes, str]]  # what is bad, and what the reason says


def cases(*groups: tuple[Any, ...]) -> Cases:
    """Return the cases of groups that begin with the reason."""
    return [(case, reason) for reason, *group in groups for case in group]


LONG = "x" * (MAX_PROMPT_CHARS + 1)
OVERLONG = "y" * (MAX_LINE_CHARS + 1)

BAD_TXT = cases(
    ("empty prompt", b"", b" \t ", "\u00a0\u2003".encode()),
    ("NUL", b"a\0b"),
    ("not valid utf-8: byte 0xff", b"a\xffb"),
    ("not valid utf-8: byte 0xe9", b"caf\xe9"),
    ("not valid utf-8: byte 0xed", b"\xed\xa0\x80"),
    ("not valid utf-8: byte 0xf0", b"\xf0\x9f\xa6"),
    ("20,001", LONG.encode()),
    ("1,048,576", OVERLONG.encode()),
)

# Cells of a table with the columns prompt,key,seed,width,guidance,images_per_prompt,negative_prompt,note
BAD_CSV = cases(
    ("empty line", b"", b"   "),
    ("empty prompt", b",,,,,,,", b'"  ",,,,,,,'),
    ("1 columns instead of 8", b"a"),
    ("9 columns instead of 8", b"a,,,,,,,,", b'"a",,,,,,,,'),
    ("broken quoting", b'"a,,,,,,,', b'"a"b,,,,,,,', b'a,,,,,,,"'),
    ("NUL", b"a\0,,,,,,,", b"a,,,,,,,\0"),
    ("byte 0xff", b"a,,,,,,,\xff"),
    ("byte 0xfe", b'"a\xfe",,,,,,,'),
    ("prompt has 20,001", LONG.encode() + b",,,,,,,"),
    ("negative_prompt has 20,001", b"a,,,,,," + LONG.encode() + b","),
    ("1,048,576", OVERLONG.encode() + b",,,,,,,", b'"' + OVERLONG.encode() + b'",,,,,,,'),
    ("key must be", b"a,a b,,,,,,", b"a, k,,,,,,", b"a," + b"k" * 65 + b",,,,,,", "a,clé,,,,,,".encode()),
    ("reserved form", b"a,000000000001-00,,,,,,"),
    ("seed must be a whole number", b"a,,1.0,,,,,", b"a,,1e3,,,,,", b"a,,1_0,,,,,", b"a,,1 0,,,,,"),
    ("seed must be a whole number", b"a,,+1,,,,,", b"a,,--1,,,,,", "a,,\u0661,,,,,".encode()),
    ("seed must be a whole number", b"a,,seven,,,,,"),
    ("seed must be between", b"a,,-1,,,,,", b"a,,4294967296,,,,,", b"a,," + b"9" * 600 + b",,,,,"),
    ("seed must be", b"a,," + b"9" * 6_000 + b",,,,,"),
    ("width must be a multiple of 8", b"a,,,100,,,,"),
    ("width must be between", b"a,,,8,,,,"),
    ("guidance must be between", b"a,,,,nan,,,", b"a,,,,inf,,,", b"a,,,,-0.1,,,"),
    ("guidance must be a number", b"a,,,,1_0,,,", b"a,,,,high,,,"),
    ("images_per_prompt must be between", b"a,,,,,0,,"),
    ("seed 4294967295 + images_per_prompt 2", b"a,,4294967295,,,2,,"),
    ("seed must be a whole number, got '\\x1b[2J'", b"a,,\x1b[2J,,,,,"),
    ("got '\\u202e1'", "a,,\u202e1,,,,,".encode()),
    ("...", b"a,," + b"z" * 500 + b",,,,,"),
)

# Those that are rejected on a line of their own and as an item of an array
BAD_JSON = cases(
    ("empty prompt", b'""', b'" "', b'{"prompt": ""}'),
    ("must be an object or a string", b"12", b"null", b"[]", b"true"),
    ("no prompt", b"{}", b'{"x": "a"}', b'{"prompt": null}'),
    ("prompt must be text", b'{"prompt": 5}', b'{"prompt": ["a"]}'),
    ("'prompt' has a NUL", b'{"prompt": "a\\u0000b"}'),
    ("'n' has a NUL", b'{"prompt": "a", "n": "\\u0000"}'),
    ("'n' has a lone surrogate, U+D800", b'{"prompt": "a", "n": [{"m": "\\ud800"}]}'),
    ("lone surrogate", b'{"prompt": "a", "\\udfff": 1}', b'"a\\ud800"', b'"\\udc80"'),
    ("byte 0xff", b'"a\xff"'),
    ("byte 0xc3", b'{"prompt": "a", "n": "\xc3"}'),
    ("prompt has 20,001", b'{"prompt": "' + LONG.encode() + b'"}'),
    ("1,048,576", b'"' + OVERLONG.encode() + b'"'),
    ("'prompt' more than once", b'{"prompt": "a", "prompt": "b"}'),
    ("'x' more than once", b'{"prompt": "a", "n": {"x": 1, "x": 1}}'),
    ("NaN", b'{"prompt": "a", "n": NaN}'),
    ("-Infinity", b'{"prompt": "a", "n": [-Infinity]}'),
    ("Infinity", b'{"prompt": "a", "guidance": Infinity}'),
    ("out of range", b'{"prompt": "a", "n": 1e999}'),
    ("too many digits", b'{"prompt": "a", "n": ' + b"9" * 5_000 + b"}"),
    ("nested", b'{"prompt": "a", "n": ' + b"[" * 101 + b"]" * 101 + b"}", b"[" * 100_000 + b"]" * 100_000),
    ("nested", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    ("seed must be a whole number, got '7'", b'{"prompt": "a", "seed": "7"}'),
    ("seed must be a whole number, got True", b'{"prompt": "a", "seed": true}'),
    ("seed must be a whole number, got 7.0", b'{"prompt": "a", "seed": 7.0}'),
    ("seed must be a whole number, got [7]", b'{"prompt": "a", "seed": [7]}'),
    ("seed must be between", b'{"prompt": "a", "seed": -1}'),
    ("seed must be between", b'{"prompt": "a", "seed": ' + b"9" * 4_000 + b"}"),
    ("guidance must be between", b'{"prompt": "a", "guidance": ' + b"9" * 4_000 + b"}"),
    ("guidance must be a number, got '7'", b'{"prompt": "a", "guidance": "7"}'),
    ("guidance must be a number", b'{"prompt": "a", "guidance": false}'),
    ("width must be", b'{"prompt": "a", "width": 65}'),
    ("height must be", b'{"prompt": "a", "height": 99999}'),
    ("steps must be", b'{"prompt": "a", "steps": 0}'),
    ("key must be", b'{"prompt": "a", "key": true}', b'{"prompt": "a", "key": 1.5}'),
    ("key must be", b'{"prompt": "a", "key": "a/b"}', b'{"prompt": "a", "key": "a\\n"}'),
    ("reserved form", b'{"prompt": "a", "key": "123456789012-34"}'),
    ("negative_prompt must be text", b'{"prompt": "a", "negative_prompt": 1}'),
    ("...", b'{"prompt": "a", "seed": "' + b"z" * 500 + b'"}'),
)

# Those that are no JSON: they damage an array, but on a line of their own they cost only that line
BAD_JSONL = cases(
    ("empty line", b"", b" \t"),
    ("not valid JSON", b"a fox", b"{", b'{"prompt": "a"', b'{"prompt": "a",}', b"{'prompt': 'a'}"),
    ("not valid JSON", b'{"prompt": "a\tb"}', b'"\\x41"', "\ufeff{}".encode()),
    ("not valid JSON: Extra data", b'{"prompt": "a"} x', b'{"prompt": "a"}{"prompt": "b"}'),
    ("NUL", b'{"prompt": "a\0b"}'),
)


def check_neighbours(path: Path, line: int, row: int, reason: str, columns: Columns | None = None) -> None:
    """Three records, the second of them bad."""
    items = read(path, columns)
    assert prompts(items) == ["one fox", None, "two dogs"]
    (bad,) = rejects(items)
    assert reason in bad.reason
    assert bad.reason.isascii() and bad.reason.isprintable() and len(bad.reason) < 160
    assert (bad.source, bad.line) == (str(path), line)
    assert [good.row for good in rows(items)] == [row - 1, row + 1]
    assert rows(items)[1].line == line + 1


def ids(cases: Cases) -> list[str]:
    return [f"{number}-{ascii(case[:20])[2:-1]}" for number, (case, _) in enumerate(cases)]


@pytest.mark.parametrize(("line", "reason"), BAD_TXT, ids=ids(BAD_TXT))
def test_bad_txt_rows(tmp_path: Path, line: bytes, reason: str) -> None:
    check_neighbours(write(tmp_path / "p.txt", b"one fox\n" + line + b"\ntwo dogs\n"), 2, 1, reason)


CSV_HEADER = b"prompt,key,seed,width,guidance,images_per_prompt,negative_prompt,note"


@pytest.mark.parametrize(("line", "reason"), BAD_CSV, ids=ids(BAD_CSV))
@pytest.mark.parametrize("after", [b"two dogs,,,,,,,", b'"two dogs","k1",7,,,,,"a ""b"""'], ids=["plain", "quoted"])
def test_bad_csv_rows(tmp_path: Path, line: bytes, reason: str, after: bytes) -> None:
    path = write(tmp_path / "p.csv", b"\n".join([CSV_HEADER, b"one fox,,,,,,,", line, after, b""]))
    check_neighbours(path, 3, 1, reason)


@pytest.mark.parametrize(("line", "reason"), BAD_JSON + BAD_JSONL, ids=ids(BAD_JSON + BAD_JSONL))
def test_bad_jsonl_rows(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "p.jsonl", b'{"prompt": "one fox"}\n' + line + b'\n{"prompt": "two dogs"}\n')
    check_neighbours(path, 2, 1, reason)


@pytest.mark.parametrize(("item", "reason"), BAD_JSON, ids=ids(BAD_JSON))
def test_bad_json_items(tmp_path: Path, item: bytes, reason: str) -> None:
    path = write(tmp_path / "p.json", b'[{"prompt": "one fox"},\n' + item + b',\n "two dogs"]\n')
    check_neighbours(path, 2, 1, reason)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("prompt", None, "no prompt"),
        ("prompt", " ", "empty prompt"),
        ("prompt", "a\0", "'prompt' has a NUL"),
        ("prompt", LONG, "prompt has 20,001"),
        ("note", "a\0", "'note' has a NUL"),
        ("key", "a b", "key must be"),
        ("seed", -1, "seed must be between"),
        ("seed", SEED_LIMIT, "seed must be between"),
        ("guidance", float("nan"), "guidance must be between"),
        ("steps", 0, "steps must be"),
    ],
)
def test_bad_parquet_rows(tmp_path: Path, name: str, value: object, reason: str) -> None:
    table: dict[str, list[Any]] = {"prompt": ["one fox", "x", "two dogs"], name: [None, None, None]}
    table["prompt"] = ["one fox", "x", "two dogs"]
    table[name][1] = value
    check_neighbours(write(tmp_path / "p.parquet", parquet(table)), 2, 1, reason)


def test_parquet_strings_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    bad = pa.array([b"one fox", b"a\xff", b"two dogs"], pa.binary()).view(pa.string())
    check_neighbours(write(tmp_path / "p.parquet", parquet({"prompt": bad})), 2, 1, "cannot be read")


def test_parquet_columns_of_the_wrong_type(tmp_path: Path) -> None:
    table = {"prompt": ["a", "b"], "seed": ["1", None]}
    items = read(write(tmp_path / "p.parquet", parquet(table)))
    assert prompts(items) == [None, "b"]
    assert "seed must be a whole number, got '1'" in rejects(items)[0].reason


# ---------------------------------------------------------------------------------------- csv and tsv


def test_csv_records_of_many_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'prompt,n\r\n"a ""big""\r\nfox",1\r\n\r\nb,2\r\n"c,\nd",3')
    items = read(path)
    assert prompts(items) == ['a "big"\nfox', None, "b", "c,\nd"]
    assert [(row.row, row.line) for row in rows(items)] == [(0, 2), (2, 5), (3, 6)]
    assert rejects(items)[0].line == 4


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_record_may_have_so_many_lines_and_no_more(tmp_path: Path, suffix: str) -> None:
    tab = "," if suffix == ".csv" else "\t"
    fits = '"' + "x\n" * (MAX_RECORD_LINES - 1) + f'"{tab}1\n'
    beyond = '"' + "x\n" * MAX_RECORD_LINES + f'"{tab}1\n'
    items = read(write(tmp_path / f"fits{suffix}", f"prompt{tab}n\na{tab}\n{fits}b{tab}\n"))
    assert len(items) == 3 and not rejects(items)
    items = read(write(tmp_path / f"beyond{suffix}", f"prompt{tab}n\na{tab}\n{beyond}b{tab}\n"))
    # The last line of the broken record, "<tab>1, has the columns of a row whose quote is text.
    assert [row.prompt for row in rows(items)] == (["a", "b"] if suffix == ".csv" else ["a", '"', "b"])
    assert len(items) == MAX_RECORD_LINES + 3
    assert rejects(items)[0].reason == "broken quoting"


def test_a_stray_quote_swallows_nothing(tmp_path: Path) -> None:
    content = 'prompt,n\n"a,1\n' + "".join(f"row {number},{number}\n" for number in range(3 * MAX_RECORD_LINES))
    items = read(write(tmp_path / "p.csv", content))
    assert len(rows(items)) == 3 * MAX_RECORD_LINES
    assert rejects(items) == [Reject(str(tmp_path / "p.csv"), 2, "broken quoting")]


def test_stray_quotes_that_pair_up_swallow_nothing(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.csv", 'prompt,n\n"a,1\nb,2\nc,3\nd,"\ne,5\n'))
    assert prompts(items) == [None, "b", "c", None, "e"]
    assert [bad.line for bad in rejects(items)] == [2, 5]


def test_a_bad_byte_in_a_record_of_many_lines_costs_that_record(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.csv", b'prompt\na\n"b\nc\xff\nd"\ne\n'))
    assert prompts(items) == ["a", None, "e"]
    assert rejects(items)[0].line == 3


def test_quoted_records_are_bounded_in_characters_too(tmp_path: Path) -> None:
    half = "x" * (MAX_LINE_CHARS // 2 + 10)
    items = read(write(tmp_path / "p.csv", f'prompt,n\na,1\n"{half}\n{half}",1\nb,2\n'))
    assert [row.prompt for row in rows(items)] == ["a", "b"]
    assert [bad.line for bad in rejects(items)] == [3, 4]


def test_tsv_quotes_are_text_where_only_that_fits(tmp_path: Path) -> None:
    lines = [
        '"G I G G L E" painted on a wall\tArt\t',
        'a sign that says "Deep" and more\tWorld\t"x',
        '"whole"\tArt\tsaid "so"',
        '"one ""two"" three"\tArt\t',
        '"left open\tArt\tx',
        'a "b"\t"\t"',
    ]
    items = read(write(tmp_path / "p.tsv", "Prompt\tCategory\tNote\n" + "\n".join(lines)))
    plain = [line.split("\t")[0] for line in lines]
    plain[2:4] = ["whole", 'one "two" three']
    assert prompts(items)[:5] == plain[:5]
    assert prompts(items)[5] == 'a "b"'


def test_tsv_cells_may_still_span_lines(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.tsv", 'prompt\tn\n"a\nb"\t1\n"c\td"\t2\n"open\ne\t3\n'))
    assert prompts(items) == ["a\nb", "c\td", None, "e"]


def test_tsv_rows_of_the_wrong_width(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.tsv", 'prompt\tn\na\t1\nb\n"c"\t1\t2\nd\t4\n'))
    assert prompts(items) == ["a", None, None, "d"]
    assert [bad.reason for bad in rejects(items)] == ["1 columns instead of 2", "3 columns instead of 2"]


# ---------------------------------------------------------------------------------------- json arrays

TRICKY = [
    {"prompt": 'a "quoted" [fox], {so}', "n": ["\\", '\\"', {"]": "}"}]},
    "back\\slash \\\\",
    {"prompt": "é 🦊 \u2028", "n": {"x": [[], {}, ""]}},
    '",',
]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**16])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("escaped", [True, False])
def test_json_items_at_any_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None, escaped: bool
) -> None:
    monkeypatch.setattr(json_items, "_CHUNK_CHARS", chunk)
    path = write(tmp_path / "p.json", json.dumps(TRICKY, indent=indent, ensure_ascii=escaped))
    got = [row.prompt if not row.extra else {"prompt": row.prompt, **row.extra} for row in rows(read(path))]
    assert got == TRICKY


@pytest.mark.parametrize("content", ["[]", " [ \n ] \n", " \n"])
def test_json_without_items(tmp_path: Path, content: str) -> None:
    assert read(write(tmp_path / "p.json", content)) == []


@pytest.mark.parametrize(
    ("content", "good", "words"),
    [
        ('{"rows": ["a"]}', 0, ["not a JSON array"]),
        ('"a"', 0, ["not a JSON array"]),
        ("x", 0, ["not a JSON array"]),
        ("]", 0, ["not a JSON array"]),
        ("[", 0, ["ends inside the array"]),
        ('["a"', 0, ["ends inside the array"]),
        ('["a", "b', 1, ["after item 1", "ends inside the array"]),
        ('["a", {"prompt": "b"', 1, ["after item 1", "ends inside the array"]),
        ('["a", {"prompt": "b}, "c", "d"]', 1, ["after item 1"]),
        ('["a", "b"] "c"', 2, ["after item 2", "after the array's end"]),
        ('["a"]["b"]', 1, ["after the array's end"]),
        ('["a",]', 1, ["not valid JSON"]),
        ("[,]", 0, ["not valid JSON"]),
        ('["a" "b"]', 0, ["not valid JSON"]),
        ('["a", b]', 1, ["not valid JSON"]),
        ('["a", {"prompt": "b"]]', 1, ["not valid JSON"]),
        ('["a"}', 0, ["}"]),
    ],
)
def test_damaged_json_files(tmp_path: Path, content: str, good: int, words: list[str]) -> None:
    path = write(tmp_path / "p.json", content)
    got: list[Item] = []
    error_of(lambda: got.extend(read_prompts([path], Columns())), path, *words)
    assert prompts(got) == ["a", "b"][:good]


# ---------------------------------------------------------------------------------------- parquet


def test_parquet_extra_is_json(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = {
        "prompt": ["a"],
        "when": pa.array([123_456_789], pa.timestamp("ns")),
        "day": [datetime.date(2024, 2, 3)],
        "cost": [decimal.Decimal("1.50")],
        "score": [float("nan")],
        "peak": [float("-inf")],
        "tags": [[{"x": 1.5, "at": datetime.datetime(2024, 2, 3)}]],
        "raw": [b"\xff"],
        "image": [{"bytes": b"\xff", "path": "x"}],
        "blobs": [[b"\xff"]],
        "flag": [True],
        "kind": pa.array(["c"]).dictionary_encode(),
        "none": [None],
    }
    (row,) = rows(read(write(tmp_path / "p.parquet", parquet(table))))
    assert row.extra == {
        "when": "1970-01-01 00:00:00.123456789",
        "day": "2024-02-03",
        "cost": "1.50",
        "score": None,
        "peak": "-inf",
        "tags": [{"x": 1.5, "at": "2024-02-03 00:00:00"}],
        "flag": True,
        "kind": "c",
        "none": None,
    }
    json.dumps(row.extra, allow_nan=False)


def test_parquet_files_without_a_prompt_column(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", parquet({"a": [1], "b": [2]}))
    error_of(lambda: read(path), "only 'a', 'b'; set job.columns.prompt")
    path = write(tmp_path / "p.parquet", parquet({"prompt": [b"a"]}))
    error_of(lambda: read(path), "'prompt' is binary")


@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz"])
def test_damaged_parquet_files(tmp_path: Path, suffix: str) -> None:
    data = parquet({"prompt": [f"prompt {number}" for number in range(100)]})
    broken = bytearray(data)
    broken[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    for content in (b"x", b"PAR1", data[: len(data) // 2], data[:-1], data[8:], bytes(broken)):
        path = write(tmp_path / f"p{suffix}", content)
        error_of(lambda path=path: read(path), path)  # type: ignore[misc]


# ---------------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("suffix", CONTENTS)
def test_damaged_gzip_files(tmp_path: Path, suffix: str) -> None:
    content = CONTENTS[suffix]()
    data = gzip.compress(content.encode() if isinstance(content, str) else content)
    flipped = bytearray(data)
    flipped[-6] ^= 1  # in the checksum
    path = tmp_path / f"p{suffix}.gz"
    for broken in (data[:-4], data[: len(data) // 2], data[:5], b"not gzip", bytes(flipped), data + b"rest"):
        path.write_bytes(broken)
        error_of(lambda: read(path), path)


def test_a_truncated_gzip_file_yields_what_it_has_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "p.txt.gz"
    path.write_bytes(gzip.compress(b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(5_000)))[:50_000])
    got: list[Item] = []
    message = error_of(lambda: got.extend(read_prompts([path], Columns())))
    assert len(rows(got)) > 1_000
    assert f"after line {len(got)}:" in message


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    error_of(lambda: read(tmp_path / "none.txt"), "No such file")
    error_of(lambda: read(tmp_path / "folder.txt"), "Is a directory")
    error_of(lambda: read(write(tmp_path / "p.doc", "x")), "suffix")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_files_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", "x")
    path.chmod(0)
    error_of(lambda: read(path), "Permission denied")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_the_longest_line_passes_and_one_more_character_does_not(tmp_path: Path, suffix: str, end: str) -> None:
    good, quote = ("a", "") if suffix == ".txt" else ('"a"', '"')
    for extra, expected in ((0, "prompt has"), (1, "1,048,576")):
        line = quote + "x" * (MAX_LINE_CHARS + extra - 2 * len(quote)) + quote
        items = read(write(tmp_path / f"p{suffix}", good + (end or "\n") + line + end + (good if end else "")))
        assert prompts(items) == (["a", None, "a"] if end else ["a", None])
        assert expected in rejects(items)[0].reason


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl"])
def test_memory_is_bounded(tmp_path: Path, suffix: str) -> None:
    """One line of 32 MiB, and a file of many rows, are read in a few MiB."""
    path = tmp_path / f"p{suffix}"
    long = "z" * 2**25
    rest = [f"row {number}" for number in range(2_000)]
    if suffix == ".json":
        write(path, json.dumps(["a", long, *rest]))
    elif suffix == ".jsonl":
        write(path, "\n".join(map(json.dumps, ["a", long, *rest])))
    else:
        write(path, "\n".join(["prompt"] * (suffix != ".txt") + ["a", long, *rest]))
    del long
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_prompts([path], Columns()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2_002
    assert peak < 12 * 2**20


def test_importing_is_cheap() -> None:
    code = "import sys, batchgen.prompts; print({'numpy', 'pyarrow', 'torch'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
