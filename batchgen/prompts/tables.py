"""The records of .csv and .tsv files. A stray quote spoils its own line, not the lines after it."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

from batchgen.prompts.lines import check_text, lines_of
from batchgen.prompts.records import MAX_LINE_CHARS, TOO_LONG, BadRow, DamagedFileError, OnHeader, Record

MAX_RECORD_LINES = 1_000


class _Lines:
    """The lines of a file. Some of them can be put back and read again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0  # of the latest line
        self.record: list[str | None] = []  # the lines of the current record; the reader keeps it short
        self._fresh = lines_of(text)
        self._again: deque[str | None] = deque()

    def __iter__(self) -> Iterator[str | None]:
        return self

    def __next__(self) -> str | None:
        line = self._again.popleft() if self._again else next(self._fresh)
        self.number += 1
        self.record.append(line)
        return line

    def put_back(self) -> None:
        """Put all of the record's lines back, except the first."""
        self._again.extendleft(reversed(self.record[1:]))
        self.number -= len(self.record) - 1
        del self.record[1:]


def table_records(text: io.TextIOWrapper, kind: str, on_header: OnHeader) -> Iterator[Record]:
    """Yield the rows of a .csv or .tsv file, after `on_header` was called with its header. Raises DamagedFileError."""
    csv.field_size_limit(4 * MAX_LINE_CHARS)  # above what a record may have, so that csv never complains
    cells_of = _csv_cells if kind == ".csv" else _tsv_cells
    lines = _Lines(text)
    header: list[str] = []
    for line in lines:
        number = lines.number
        del lines.record[:-1]
        value: dict[str, Any] | BadRow
        try:
            if line is None:
                raise BadRow(TOO_LONG)
            if line.isspace():
                raise BadRow("empty line")
            cells = cells_of(line, lines, len(header))
            for part in lines.record:
                check_text(cast(str, part), text.encoding)
            value = dict(zip(header, cells, strict=False))
        except BadRow as bad:
            value = bad
        if header:
            yield number, value
        elif isinstance(value, BadRow):
            raise DamagedFileError(f"the header cannot be read: {value}")
        else:
            header = cells
            on_header(header)


def _tsv_cells(line: str, lines: _Lines, width: int) -> list[str]:
    """Like _csv_cells, but quotes count as text if only that gives the line the right number of columns."""
    if '"' in line:
        plain = line.removesuffix("\n").split("\t")
        try:
            cells = next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            cells = plain
        for choice in (cells, plain):
            if len(choice) == width or not width:
                return choice
    return _csv_cells(line, lines, width, "\t")


def _csv_cells(line: str, lines: _Lines, width: int, delimiter: str = ",") -> list[str]:
    """Return the cells of the record that begins with `line`, and take the rest of it from `lines`.

    Raises BadRow. If a record turns out to be broken in a later line, only its first line is used up, because the
    quote that holds the lines together may be a stray one. A `width` of 0 stands for any number of columns.
    """
    if '"' not in line:  # csv.reader would do the same, but takes several times as long
        cells = line.removesuffix("\n").split(delimiter)
    else:
        try:
            cells = next(csv.reader(_record(line, lines), delimiter=delimiter, strict=True))
            if width and len(cells) != width and len(lines.record) > 1:
                raise csv.Error
        except csv.Error:
            lines.put_back()
            raise BadRow("broken quoting") from None
    if width and len(cells) != width:
        raise BadRow(f"{len(cells)} columns instead of {width}")
    return cells


def _record(line: str, lines: _Lines) -> Iterator[str]:
    """Yield the line and the lines after it, as far as one record may reach."""
    yield line
    size = len(line)
    for more in lines:
        size += len(more or "")
        if more is None or size > MAX_LINE_CHARS or len(lines.record) > MAX_RECORD_LINES:
            return
        yield more
