"""Rows that are wrong and keys that would escape: each is rejected with its line, and its neighbours are made."""

import json
from pathlib import Path

import pytest

from batchgen.config.schema import JobConfig
from batchgen.plan.planner import Planner
from batchgen.prompts import Reading, read_prompts
from batchgen.types import Prompt, PromptFile, Reject

CORRUPT_ROWS = {
    "blank": b'{"prompt": "   "}',
    "empty": b'{"prompt": ""}',
    "null": b'{"prompt": null}',
    "missing": b'{"note": "x"}',
    "number": b'{"prompt": 7}',
    "bool": b'{"prompt": true}',
    "list of numbers": b'{"prompt": [1]}',
    "list of nothing": b'{"prompt": ["", null]}',
    "dict": b'{"prompt": {"a": 1}}',
    "a list in place of a row": b'["a fox"]',
    "a number in place of a row": b"12",
    "null in place of a row": b"null",
    "truncated": b'{"prompt": "a fo',
    "trailing comma": b'{"prompt": "a",}',
    "two rows on a line": b'{"prompt": "a"} {"prompt": "b"}',
    "single quotes": b"{'prompt': 'a'}",
    "a comment": b"# a fox",
    "no quotes": b"{prompt: a}",
    "NaN": b'{"prompt": NaN}',
    "Infinity": b'{"prompt": "a", "guidance": Infinity}',
    "NaN as a key": b'{"prompt": "a", "key": [NaN]}',
    "the same name twice": b'{"prompt": "a", "prompt": "b"}',
    "latin-1": b'{"prompt": "caf\xe9"}',
    "cut UTF-8": b'{"prompt": "\xe2\x82"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "lone surrogate, escaped": b'{"prompt": "\\ud800"}',
    "NUL": b'{"prompt": "a\\u0000b"}',
    "raw NUL": b'{"prompt": "a\x00b"}',
    "raw control character": b'{"prompt": "a\x01b"}',
    "too long": b'{"prompt": "' + b"a" * 20_001 + b'"}',
    "negative seed": b'{"prompt": "a", "seed": -2}',
    "seed of 2**64": b'{"prompt": "a", "seed": 18446744073709551616}',
    "seed that was rounded": b'{"prompt": "a", "seed": 1.8446744073709552e19}',
    "seed of 5,000 digits": b'{"prompt": "a", "seed": ' + b"9" * 5_000 + b"}",
    "seed with a fraction": b'{"prompt": "a", "seed": 1.5}',
    "seed that is a bool": b'{"prompt": "a", "seed": true}',
    "width of 0": b'{"prompt": "a", "width": 0}',
    "width of 7": b'{"prompt": "a", "width": 7}',
    "width not of eights": b'{"prompt": "a", "width": 68}',
    "width of a billion": b'{"prompt": "a", "width": 1000000000}',
    "height below 64": b'{"prompt": "a", "height": 8}',
    "no steps": b'{"prompt": "a", "steps": 0}',
    "a million steps": b'{"prompt": "a", "steps": 1000000}',
    "negative guidance": b'{"prompt": "a", "guidance": -1}',
    "huge guidance": b'{"prompt": "a", "guidance": 1e300}',
    "no images": b'{"prompt": "a", "images_per_prompt": 0}',
    "a billion images": b'{"prompt": "a", "images_per_prompt": 1000000000}',
    "negative prompt that is a list": b'{"prompt": "a", "negative_prompt": ["b"]}',
    "key that is a list": b'{"prompt": "a", "key": ["b"]}',
    "deeper than anybody nests": b'{"prompt": "a", "note": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}  # fmt: skip
HOSTILE_KEYS = [
    "../escape", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\x", "a.b", "a.pkl", "a.png", ".hidden", "a\x00b", "a\nb",
    "a\rb", "a b", " a", "a\t", "k" * 65, "k" * 400, "pipe:cat x", "$(id)", "`id`", "a;b", "a|b", "<script>", "%2e%2e",
    "caf\u00e9", "cafe\u0301", "\u202eabc", "\u200b", "\U0001f984", "000000000000-00", "001000000002-01", "-\u2010",
]  # fmt: skip


def planned(tmp_path: Path, lines: list[bytes]) -> list[Prompt | Reject]:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    job = JobConfig(name="test", prompts=str(path), width=64, height=64, steps=2, guidance=7.5)
    return list(Planner(job).prompts(read_prompts([PromptFile(path)], Reading()), None))


def test_there_are_as_many_as_were_promised() -> None:
    assert (len(CORRUPT_ROWS) >= 40, len(set(HOSTILE_KEYS)) >= 25) == (True, True)


@pytest.mark.parametrize("kind", CORRUPT_ROWS)
def test_a_corrupt_row_is_rejected_and_its_neighbours_are_made(tmp_path: Path, kind: str) -> None:
    before, reject, after = planned(tmp_path, [b'{"prompt": "a fox"}', CORRUPT_ROWS[kind], b'{"prompt": "a hen"}'])
    assert isinstance(before, Prompt) and isinstance(reject, Reject) and isinstance(after, Prompt)
    assert (before.prompt, after.prompt, reject.line) == ("a fox", "a hen", 2)
    assert 0 < len(reject.reason) < 400
    assert reject.reason.isprintable()


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=ascii)
def test_a_hostile_key_names_no_file(tmp_path: Path, key: str) -> None:
    row = json.dumps({"prompt": "a", "key": key}).encode()
    before, reject, after = planned(tmp_path, [b'{"prompt": "a fox"}', row, b'{"prompt": "a hen"}'])
    assert isinstance(before, Prompt) and isinstance(reject, Reject) and isinstance(after, Prompt)
    assert "key" in reject.reason
    assert reject.reason.isprintable()
