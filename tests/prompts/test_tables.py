"""The records of .csv and .tsv files, and what a broken quote costs."""

from pathlib import Path

import pytest

from batchgen.prompts.records import MAX_LINE_CHARS
from batchgen.prompts.tables import MAX_RECORD_LINES
from batchgen.types import Reject
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
    rows,
    write,
)

# Cells of a table with the columns prompt,key,seed,width,guidance,images_per_prompt,negative_prompt,note
BAD_CSV = cases(
    ("empty line", b"", b"   "),
    ("empty prompt", b",,,,,,,", b'"  ",,,,,,,'),
    ("1 columns instead of 8", b"a"),
    ("9 columns instead of 8", b"a,,,,,,,,", b'"a",,,,,,,,', b"a,,,,,,,,x", b'"a",,,,,,,,x'),
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
    ("seed must be between", b"a,,-1,,,,,", b"a,,-2,,,,,", b"a,,4294967296,,,,,", b"a,," + b"9" * 600 + b",,,,,"),
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


CSV_HEADER = b"prompt,key,seed,width,guidance,images_per_prompt,negative_prompt,note"


# What today's reader can use
FORGIVEN = (
    b"", b"   ", b",,,,,,,", b"a", b"a,,,,,,,,", b'"a",,,,,,,,', b"a,,1.0,,,,,", b"a,,-1,,,,,", b"a,,4294967296,,,,,",
    b"a,,,,nan,,,",
)  # fmt: skip


@pytest.mark.parametrize(("line", "reason", "version"), by_version(BAD_CSV, FORGIVEN))
@pytest.mark.parametrize("after", [b"two dogs,,,,,,,", b'"two dogs","k1",7,,,,,"a ""b"""'], ids=["plain", "quoted"])
def test_bad_csv_rows(tmp_path: Path, line: bytes, reason: str, version: int, after: bytes) -> None:
    path = write(tmp_path / "p.csv", b"\n".join([CSV_HEADER, b"one fox,,,,,,,", line, after, b""]))
    check_neighbours(path, 3, 1, reason, version)


def test_csv_records_of_many_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", 'prompt,n\r\n"a ""big""\r\nfox",1\r\n\r\nb,2\r\n"c,\nd",3')
    items = read(path)
    assert prompts(items) == ['a "big"\nfox', "b", "c,\nd"]
    assert [(row.row, row.line) for row in rows(items)] == [(0, 2), (2, 5), (3, 6)]


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
    items = read(write(tmp_path / "p.tsv", 'prompt\tn\na\t1\nb\n"c"\t1\t2\nd\t4\n'), version=1)
    assert prompts(items) == ["a", None, None, "d"]
    assert [bad.reason for bad in rejects(items)] == ["1 columns instead of 2", "3 columns instead of 2"]


# What programs and people write, and what today's reader makes of it: the prompts of the rows, and a field
@pytest.mark.parametrize(
    ("content", "expected", "seeds"),
    [
        ("prompt;seed\na, red car;5\n", ["a, red car"], [5]),
        ("\ufeffprompt;seed\r\na red car;5\r\n", ["a red car"], [5]),
        ("sep=;\nprompt;seed\na, red car;5\n", ["a, red car"], [5]),
        ('"sep=;"\nprompt;seed\na;5\n', ["a"], [5]),
        ("SEP=|\r\nprompt|seed\r\na|5\r\n", ["a"], [5]),
        ("sep=\t\nprompt\tseed\na\t5\n", ["a"], [5]),
        ('"id";"prompt";"seed"\n"1";"a ""red"" car";"5"\n', ['a "red" car'], [5]),
        ("id|prompt|seed\n1|a|5\n", ["a"], [5]),
        ("id\tprompt\tseed\n1\ta\t5\n", ["a"], [5]),
        ("prompt,seed\na;b,5\n", ["a;b"], [5]),  # the suffix says the separator, if the prompt is found by it
        ("\n  \nprompt,seed\n\na,5\n\n", ["a"], [5]),
        ('#TYPE System.Management.Automation.PSCustomObject\n"prompt","seed"\n"a","5"\n', ["a"], [5]),
        ("prompt,seed,,\na,5,,\nb,6,,\n", ["a", "b"], [5, 6]),
        (",prompt,seed\n0,a,5\n", ["a"], [5]),  # the index of pandas
        ("prompt,seed,note\na\nb,6\nc,7,x\n", ["a", "b", "c"], [None, 6, 7]),
        ("prompt,seed\na,5\n,\n , \nb,6\n", ["a", "b"], [5, 6]),
        ("prompt, seed\na, 5\n\"b, c\", 6\n", ["a", "b, c"], [5, 6]),
        ('id, "prompt", seed\n1, "a, b", 6\n', ["a, b"], [6]),
        ("\ufeffprompt,seed\na,5\n\ufeffprompt,seed\nb,6\n", ["a", "b"], [5, 6]),  # two files put together
    ],
)  # fmt: skip
def test_tables_as_people_have_them(tmp_path: Path, content: str, expected: list[str], seeds: list[int]) -> None:
    items = read(write(tmp_path / "p.csv", content))
    assert prompts(items) == expected
    assert [row.seed for row in rows(items)] == seeds


def test_a_tsv_may_have_other_separators(tmp_path: Path) -> None:
    assert prompts(read(write(tmp_path / "p.tsv", "id,prompt\n1,a fox\n"))) == ["a fox"]


@pytest.mark.parametrize(("separator", "char"), [("semicolon", ";"), (";", ";"), ("tab", "\t"), ("~", "~")])
def test_the_job_may_say_the_separator(tmp_path: Path, separator: str, char: str) -> None:
    path = write(tmp_path / "p.csv", f"prompt{char}seed,x\na,b{char}5\n")
    (row,) = rows(read(path, separator=separator))
    assert (row.prompt, row.extra) == ("a,b", {"seed,x": "5"})


def test_the_job_is_believed_where_it_names_the_wrong_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "id,prompt\n1,a\n")
    error_of(lambda: read(path, separator="tab"), "only 'id,prompt'")


def test_a_header_without_a_prompt_is_shown_by_its_columns(tmp_path: Path) -> None:
    message = error_of(lambda: read(write(tmp_path / "p.csv", "id;url;note\n1;2;3\n")), "'id', 'url', 'note'")
    assert "job.columns.prompt=NAME" in message and "put a line with the names of all 3 columns" in message


def test_a_line_may_be_short_only_where_it_is_whole(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.csv", "prompt,seed\na,5\nb"))
    assert prompts(items) == ["a", None]
    assert rejects(items)[0].reason == "1 columns instead of 2: is the last line cut off?"
    items = read(write(tmp_path / "p.csv", 'prompt,seed\na\n"left open\nrest of it\nb,6\n'))
    assert prompts(items) == ["a", None, None, "b"], "after a broken quote a short line may be a part of a text"


def test_a_column_without_a_name_costs_no_row(tmp_path: Path) -> None:
    items = read(write(tmp_path / "p.csv", "prompt,,seed,,\na,x,5,y,\nb,,6\nc,,7,,\nd,,8"))
    assert [(row.prompt, row.seed, row.extra) for row in rows(items)] == [
        ("a", 5, {}), ("b", 6, {}), ("c", 7, {}), ("d", 8, {}),
    ]  # fmt: skip
    assert not rejects(items)


def test_comments_are_skipped_where_the_job_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", '# my list\nprompt,note\n# one\na,# not here\n"b\n# nor here",x\n')
    assert prompts(read(path, comment="#")) == ["a", "b\n# nor here"]
    assert [row.row for row in rows(read(path, comment="#"))] == [1, 2]
    error_of(lambda: read(path), "only '# my list'")


def test_an_earlier_plan_is_extended_with_tables_as_it_read_them(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "prompt, seed\na, 5\n\nb\n,,\nc, 6\n")
    items = read(path, version=1)
    assert prompts(items) == ["a", None, None, None, "c"]
    assert [row.extra for row in rows(items)] == [{" seed": " 5"}, {" seed": " 6"}]
    error_of(lambda: read(write(path, "prompt;seed\na;5\n"), version=1), "only 'prompt;seed'")
