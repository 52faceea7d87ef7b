"""The prompt files of a job and their rows. A bad row becomes a Reject, a bad file a PromptError."""

import zlib
from collections.abc import Iterator, Sequence

from batchgen.errors import PromptError
from batchgen.prompts.advice import text_note
from batchgen.prompts.fetch import Fetcher
from batchgen.prompts.find import find_files
from batchgen.prompts.formats import format_of, read_records
from batchgen.prompts.found import FileColumns, Found
from batchgen.prompts.records import DamagedFileError, path_name, shown
from batchgen.prompts.remedies import cure
from batchgen.prompts.rows import RowReader
from batchgen.prompts.settings import READS, Reading
from batchgen.types import PromptFile, Reject, Row

__all__ = ["READS", "Fetcher", "Found", "Reading", "find_files", "read_prompts"]

_ITEM_FORMATS = (".json", ".parquet")


def read_prompts(
    files: Sequence[PromptFile], reading: Reading, first_file: int = 0, found: Found | None = None
) -> Iterator[Row | Reject]:
    """Return an iterator over the rows of the files, in order, with a Reject for each row that cannot be used.

    It holds one row at a time, or some lines of a broken row. `first_file` is the first file's Row.file. What the files
    have in their columns goes into `found`.
    Raises PromptError: at once if a setting in `reading` is not valid; while iterating if a file cannot be read to its
    end, is not text in that encoding, or lacks the column for the prompt or one that the job names.
    """
    reading.check()
    return _rows(files, reading, first_file, Found() if found is None else found)


def _rows(files: Sequence[PromptFile], reading: Reading, first_file: int, found: Found) -> Iterator[Row | Reject]:
    for number, file in enumerate(files, first_file):
        kind = format_of(file.name)
        columns = FileColumns(file.name, reading, notes=found.notes)
        found.files.append(columns)
        reader = RowReader(number, file.name, reading, kind in (".csv", ".tsv"), columns)
        line, looked_at = 0, kind != ".txt"
        try:
            for place, (line, value) in enumerate(read_records(file, reading, reader)):
                if not looked_at and value is not None:
                    looked_at = True
                    columns.note(text_note(value) if isinstance(value, str) else None)
                yield from reader.rows(place, line, value)
        except UnicodeError as error:
            problem = f"not valid {shown(reading.encoding)}{_after(kind, line)} ({_one_line(str(error))})"
            raise PromptError(f"{path_name(file.name)}: {problem}; set job.encoding") from error
        except (OSError, EOFError, zlib.error, DamagedFileError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            helps = cure(str(file.path), reason.removeprefix("the header cannot be read: "))
            problem = f"cannot be read{_after(kind, line)}: {_one_line(reason)}" + (f"; {helps}" if helps else "")
            raise PromptError(f"{path_name(file.name)}: {problem}") from error
        reader.check_end()


def _after(kind: str, line: int) -> str:
    return f" after {'item' if kind in _ITEM_FORMATS else 'line'} {line}" if line else ""


def _one_line(text: str) -> str:
    text = " ".join(text.split())[:400]
    return text if text.isprintable() else ascii(text)
