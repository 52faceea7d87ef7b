"""The prompt files of a job and their rows. A bad row becomes a Reject, a bad file a PromptError."""

import codecs
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from batchgen.errors import PromptError
from batchgen.prompts.find import find_files
from batchgen.prompts.formats import format_of, read_records
from batchgen.prompts.records import DamagedFileError, doubled, path_name, shown
from batchgen.prompts.rows import RowReader
from batchgen.types import Columns, Reject, Row

__all__ = ["find_files", "read_prompts"]

_ITEM_FORMATS = (".json", ".parquet")


def read_prompts(
    files: Sequence[Path], columns: Columns, encoding: str = "utf-8-sig", first_file: int = 0
) -> Iterator[Row | Reject]:
    """Return an iterator over the rows of the files, in order, with a Reject for each row that cannot be used.

    It holds one row at a time, or some lines of a broken row. `first_file` is the first file's Row.file.
    Raises PromptError: at once if `encoding` or `columns` is not valid; while iterating if a file cannot
    be read to its end, is not text in that encoding, or has no column for the prompt.
    """
    try:
        codecs.lookup(encoding)
        "a".encode(encoding)  # only use shows that a codec is not for text
    except (LookupError, ValueError):
        raise PromptError(f"job.encoding: {shown(encoding)} is not a known text encoding") from None
    named = [getattr(columns, column.name) for column in fields(columns)]
    twice = doubled([name for name in named if name is not None])
    if twice is not None:
        raise PromptError(f"job.columns: {shown(twice)} is set for more than one field")
    return _rows(files, columns, encoding, first_file)


def _rows(files: Sequence[Path], columns: Columns, encoding: str, first_file: int) -> Iterator[Row | Reject]:
    for number, path in enumerate(files, first_file):
        kind = format_of(path)
        reader = RowReader(number, path, columns, cells_are_text=kind in (".csv", ".tsv"))
        line = 0
        try:
            for place, (line, value) in enumerate(read_records(path, encoding, reader.take_header)):
                yield reader.row(place, line, value)
        except UnicodeError as error:
            problem = f"not valid {shown(encoding)}{_after(kind, line)} ({_one_line(str(error))})"
            raise PromptError(f"{path_name(path)}: {problem}; set job.encoding") from error
        except (OSError, EOFError, zlib.error, DamagedFileError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problem = f"cannot be read{_after(kind, line)}: {_one_line(reason)}"
            raise PromptError(f"{path_name(path)}: {problem}") from error


def _after(kind: str, line: int) -> str:
    return f" after {'item' if kind in _ITEM_FORMATS else 'line'} {line}" if line else ""


def _one_line(text: str) -> str:
    text = " ".join(text.split())[:300]
    return text if text.isprintable() else ascii(text)
