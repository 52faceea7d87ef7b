"""The lines of text files, their encodings and their ends."""

import codecs
from pathlib import Path

import pytest

from batchgen.prompts.records import MAX_LINE_CHARS
from tests.prompts.reading import (
    LONG,
    OVERLONG,
    by_version,
    cases,
    check_neighbours,
    error_of,
    prompts,
    read,
    rejects,
    write,
)


def test_lines_end_only_at_newlines_and_returns(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", "a\x0bb\x0cc\x1cd\x85e\u2028f\rg\r\nh\ni")
    assert prompts(read(path)) == ["a\x0bb\x0cc\x1cd\x85e\u2028f", "g", "h", "i"]


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


def test_a_file_of_nothing_but_a_mark_is_empty(tmp_path: Path) -> None:
    assert read(write(tmp_path / "p.csv", codecs.BOM_UTF8)) == []


@pytest.mark.parametrize(
    ("data", "codec"), [(b"a\0\n\0b", "utf-16-le"), (b"\0\xd8a\0", "utf-16-le"), (b"abc", "utf-32")]
)
def test_encodings_that_cannot_pass_over_a_bad_byte(tmp_path: Path, data: bytes, codec: str) -> None:
    path = write(tmp_path / "p.txt", data)
    error_of(lambda: read(path, encoding=codec), path, "job.encoding")


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


FORGIVEN = (b"", b" \t ", "\u00a0\u2003".encode())  # a blank line is no bad row


@pytest.mark.parametrize(("line", "reason", "version"), by_version(BAD_TXT, FORGIVEN))
def test_bad_txt_rows(tmp_path: Path, line: bytes, reason: str, version: int) -> None:
    check_neighbours(write(tmp_path / "p.txt", b"one fox\n" + line + b"\ntwo dogs\n"), 2, 1, reason, version)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_the_longest_line_passes_and_one_more_character_does_not(tmp_path: Path, suffix: str, end: str) -> None:
    good, quote = ("a", "") if suffix == ".txt" else ('"a"', '"')
    for extra, expected in ((0, "prompt has"), (1, "1,048,576")):
        line = quote + "x" * (MAX_LINE_CHARS + extra - 2 * len(quote)) + quote
        items = read(write(tmp_path / f"p{suffix}", good + (end or "\n") + line + end + (good if end else "")))
        assert prompts(items) == (["a", None, "a"] if end else ["a", None])
        assert expected in rejects(items)[0].reason
