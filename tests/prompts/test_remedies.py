"""What helps where a row cannot be used."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from batchgen.prompts.remedies import cure, remedy
from batchgen.types import Columns
from tests.prompts.reading import prompts, read, rejects, write

LATIN1 = "prompt,note\na fox,1\na caf\u00e9,2\na horse,3\nna\u00efve art,4\n".encode("latin-1")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (LATIN1, "set job.encoding=cp1252"),
        (LATIN1 + "über\n".encode(), "set job.encoding to the file's encoding"),  # cp1252 would spoil this line
        (b"a fox\na \x81 horse\n", "set job.encoding to the file's encoding"),  # no cp1252 either
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_cp1252_is_named_only_where_it_helps(tmp_path: Path, data: bytes, expected: str, packed: bool) -> None:
    path = tmp_path / ("p.csv.gz" if packed else "p.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert remedy(str(path), "not valid utf-8: byte 0xe9") == expected


@pytest.mark.parametrize(
    ("reason", "key"),
    [
        ("not valid utf-16: byte 0xe9", "job.encoding"),
        ("not valid JSON: Expecting value", "job.on_bad_row=fail"),
        ("no prompt: none of prompt, text is there", "job.columns.prompt"),
        ("3 columns instead of 2", "put quotes around a text that holds the separator"),
        ("2 columns instead of 3: is the last line cut off?", "job.on_bad_row=fail"),
        ("not valid utf-8: byte 0xe9", "job.encoding"),
    ],
)
def test_a_key_helps_also_where_the_file_is_gone(reason: str, key: str) -> None:
    assert key in remedy("no/such/file.csv", reason)


def test_a_reason_that_names_its_key_is_not_given_another() -> None:
    reason = "width must be a multiple of 8, got 500 (job.columns.width=null job.columns.height=null leave the size)"
    assert cure("p.csv", reason) is None
    assert remedy("p.csv", reason) == "or set job.on_bad_row=fail to stop at the first"


OPENAI = {"custom_id": "1", "method": "POST", "body": {"model": "m", "prompt": "a fox"}}


@pytest.mark.parametrize(
    ("suffix", "content", "program", "columns"),
    [
        (".jsonl", json.dumps(OPENAI) + "\n", ".body", Columns()),
        (".json", json.dumps([OPENAI], indent=1), ".[].body", Columns()),
        (".jsonl", '{"id": 1, "sentences": [{"tokens": [], "raw": "a fox"}]}\n', ".sentences[]", Columns(prompt="raw")),
    ],
)
def test_a_nested_prompt_is_told_and_jq_writes_it_as_rows(
    tmp_path: Path, suffix: str, content: str, program: str, columns: Columns
) -> None:
    path = write(tmp_path / f"p{suffix}", content)
    (bad,) = rejects(read(path))
    helps = remedy(str(path), bad.reason)
    assert f"jq -c '{program}' FILE > NEW.jsonl" in helps
    assert ("job.columns.prompt=NAME" in helps) == (columns.prompt is not None)
    assert bad.reason.isascii() and len(bad.reason) < 210
    if shutil.which("jq") is None:
        pytest.skip("needs jq")
    made = subprocess.run(["jq", "-c", program, str(path)], capture_output=True, check=True).stdout
    assert prompts(read(write(tmp_path / "new.jsonl", made), columns)) == ["a fox"]


def test_the_members_that_are_there_are_named(tmp_path: Path) -> None:
    (bad,) = rejects(read(write(tmp_path / "p.jsonl", json.dumps({f"n{i}" * 99: 1 for i in range(9)}) + "\n")))
    assert "only 'n0n0" in bad.reason and bad.reason.endswith("and more") and len(bad.reason) < 210


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'prompt': 'a fox'}", "json.dumps(row)"),
        ('{"prompt": "a fox",}', "no comma before a }"),
        ('{"prompt": "a fox"},', "one object on each line, with nothing after it"),
        ('["a fox", 5]', "orient='records', lines=True"),
    ],
)
def test_lines_that_are_not_quite_json_are_told_what_writes_them(tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path / "p.jsonl", '{"prompt": "a"}\n' + line + "\n")
    (bad,) = rejects(read(path))
    assert words in remedy(str(path), bad.reason)
