"""JSON lines and the items of JSON arrays."""

import json
from pathlib import Path

import pytest

from batchgen.prompts import Reading, json_items, read_prompts
from batchgen.types import PromptFile
from tests.prompts.reading import (
    LONG,
    OVERLONG,
    Item,
    by_version,
    cases,
    check_neighbours,
    error_of,
    prompts,
    read,
    rows,
    write,
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
    ("seed must be between", b'{"prompt": "a", "seed": -2}', b'{"prompt": "a", "seed": 18446744073709551616}'),
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

# What today's reader can use, or leaves out for another reason
FORGIVEN = (
    b"", b" \t", b'{"prompt": ["a"]}', b'{"prompt": "a", "n": NaN}', b'{"prompt": "a", "n": [-Infinity]}',
    b'{"prompt": "a", "seed": "7"}', b'{"prompt": "a", "seed": 7.0}', b'{"prompt": "a", "seed": -1}',
    b'{"prompt": "a", "guidance": "7"}', b'{"prompt": "a", "guidance": Infinity}', "\ufeff{}".encode(),
)  # fmt: skip


@pytest.mark.parametrize(("line", "reason", "version"), by_version(BAD_JSON + BAD_JSONL, FORGIVEN))
def test_bad_jsonl_rows(tmp_path: Path, line: bytes, reason: str, version: int) -> None:
    path = write(tmp_path / "p.jsonl", b'{"prompt": "one fox"}\n' + line + b'\n{"prompt": "two dogs"}\n')
    check_neighbours(path, 2, 1, reason, version)


@pytest.mark.parametrize(("item", "reason", "version"), by_version(BAD_JSON, FORGIVEN))
def test_bad_json_items(tmp_path: Path, item: bytes, reason: str, version: int) -> None:
    path = write(tmp_path / "p.json", b'[{"prompt": "one fox"},\n' + item + b',\n "two dogs"]\n')
    check_neighbours(path, 2, 1, reason, version)


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
        ('{"rows": ["a"]}', 0, ["neither a JSON array nor", "an object with 'rows'", "jq: -c"]),
        ("x", 0, ["neither a JSON array nor"]),
        ("]", 0, ["neither a JSON array nor"]),
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
    error_of(lambda: got.extend(read_prompts([PromptFile(path)], Reading())), path, *words)
    assert prompts(got) == ["a", "b"][:good]
