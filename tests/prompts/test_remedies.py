"""What helps where a row cannot be used."""

import gzip
from pathlib import Path

import pytest

from batchgen.prompts.remedies import cure, remedy

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
