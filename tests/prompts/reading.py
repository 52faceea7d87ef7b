"""What the tests of prompt files share: writing and reading a file, and the neighbours of a bad row."""

import gzip
import io
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

from batchgen.config.bounds import MAX_PROMPT_CHARS
from batchgen.errors import PromptError
from batchgen.prompts import READS, Reading, read_prompts
from batchgen.prompts.records import MAX_LINE_CHARS
from batchgen.types import Columns, PromptFile, Reject, Row

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


def read(path: Path, columns: Columns | None = None, encoding: str = "utf-8-sig", **settings: Any) -> list[Item]:
    return list(read_prompts([PromptFile(path)], Reading(columns or Columns(), encoding, **settings)))


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


CONTENTS: dict[str, Callable[[], str | bytes]] = {
    ".txt": lambda: "  a fox \na dog\r\n\ta cat\t",
    ".csv": lambda: 'id,prompt\n1,a fox\n2,"a dog"\n3,a cat\n',
    ".tsv": lambda: "prompt\tid\na fox\t1\na dog\t2\na cat\t3",
    ".json": lambda: '["a fox", {"prompt": "a dog"},\n\n {"x": [1, "]"], "prompt": "a cat"}]\n',
    ".jsonl": lambda: '"a fox"\n{"prompt": "a dog"}\n{"x": [1], "prompt": "a cat"}\n',
    ".ndjson": lambda: '"a fox"\n{"prompt": "a dog"}\n{"x": [1], "prompt": "a cat"}',
    ".parquet": lambda: parquet({"id": [1, 2, 3], "prompt": ["a fox", "a dog", "a cat"]}),
}


Cases = list[tuple[bytes, str]]  # what is bad, and what the reason says


def cases(*groups: tuple[Any, ...]) -> Cases:
    """Return the cases of groups that begin with the reason."""
    return [(case, reason) for reason, *group in groups for case in group]


LONG = "x" * (MAX_PROMPT_CHARS + 1)


OVERLONG = "y" * (MAX_LINE_CHARS + 1)


def check_neighbours(path: Path, line: int, row: int, reason: str, version: int = READS) -> None:
    """Three records, the second of them bad."""
    items = read(path, version=version)
    assert prompts(items) == ["one fox", None, "two dogs"]
    (bad,) = rejects(items)
    assert reason in bad.reason
    assert bad.reason.isascii() and bad.reason.isprintable() and len(bad.reason) < 210
    assert (bad.source, bad.line) == (str(path), line)
    assert [good.row for good in rows(items)] == [row - 1, row + 1]
    assert rows(items)[1].line == line + 1


def by_version(cases: Cases, forgiven: Collection[bytes] = ()) -> list[Any]:
    """The cases for the first version of the reader, and those that are bad to today's, too."""
    return [
        pytest.param(case, reason, version, id=f"{version}-{number}-{ascii(case[:20])[2:-1]}")
        for version in (1, READS)
        for number, (case, reason) in enumerate(cases)
        if version == 1 or case not in forgiven
    ]
