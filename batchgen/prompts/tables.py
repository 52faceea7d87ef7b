"""The records of .csv and .tsv files. A stray quote spoils its own line, not the lines after it."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from typing import cast

from batchgen.prompts.lines import bare_line, check_text, is_skipped, lines_of
from batchgen.prompts.records import (
    MAX_LINE_CHARS,
    TOO_LONG,
    BadRow,
    DamagedFileError,
    HeaderReader,
    Record,
    doubled,
)
from batchgen.prompts.settings import Reading

MAX_RECORD_LINES = 1_000
_USUAL = {".csv": ",", ".tsv": "\t"}
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's word for the separator, in the first line
_TYPE_LINE = "#TYPE "  # what PowerShell's Export-Csv begins with


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


class _Cutter:
    """Cuts lines into cells."""

    def __init__(self, delimiter: str, reading: Reading) -> None:
        self.delimiter = delimiter
        self.width = 0  # the number of columns; 0 before the header is known
        self.named_width = 0  # the same without those at the end that have no name
        self.skips_spaces = False  # after each separator
        self._reading = reading
        self._lenient = reading.lenient
        self._pads = reading.lenient
        self._blanks = f"{delimiter} \t"

    def is_blank(self, line: str) -> bool:
        """Whether a line is to be skipped: it is blank, a comment, or has nothing between its separators."""
        if not self._lenient:
            return False
        if is_skipped(line, self._reading):
            return True
        return line[0] in self._blanks and not line.replace(self.delimiter, "").strip()

    def cells(self, line: str, lines: _Lines) -> list[str]:
        """Return the cells of the record that begins with `line`, and take the rest of it from `lines`.

        Raises BadRow. If a record turns out to be broken in a later line, only its first line is used up, because the
        quote that holds the lines together may be a stray one.
        """
        if '"' not in line:  # csv.reader would do the same, but takes several times as long
            cells = line.removesuffix("\n").split(self.delimiter)
            cells = [cells[0], *(cell.lstrip() for cell in cells[1:])] if self.skips_spaces else cells
        elif self.delimiter == "\t" and (plain := self._tab_cells(line)) is not None:
            return plain
        else:
            cells = self._quoted(line, lines)
        fitted = self._fitted(cells, line, lines)
        if fitted is None:
            cut = (
                ""
                if not self._lenient or line.endswith("\n") or len(cells) > self.width
                else ": is the last line cut off?"
            )
            raise BadRow(f"{len(cells)} columns instead of {self.width}{cut}")
        return fitted

    def _quoted(self, line: str, lines: _Lines) -> list[str]:
        try:
            cells = next(self._reader(_record(line, lines)))
            if len(lines.record) > 1 and self._trimmed(cells) is None:
                raise csv.Error
        except csv.Error:
            lines.put_back()
            self._pads = False  # the lines that follow may be the rest of what was quoted
            raise BadRow("broken quoting") from None
        return cells

    def _tab_cells(self, line: str) -> list[str] | None:
        """The cells of one line between tabs: quotes count as text if only that gives the right number of columns."""
        plain = line.removesuffix("\n").split("\t")
        try:
            cells = next(self._reader(iter([line])))
        except csv.Error:
            cells = plain
        return next((fit for fit in map(self._trimmed, (cells, plain)) if fit is not None), None)

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=self.skips_spaces)

    def _trimmed(self, cells: list[str]) -> list[str] | None:
        """The cells, without empty ones beyond the last column; None if there are too few or too many."""
        if not self.width or len(cells) == self.width:
            return cells
        beyond = cells[self.width :]
        return cells[: self.width] if self._lenient and beyond and not any(map(str.strip, beyond)) else None

    def _fitted(self, cells: list[str], line: str, lines: _Lines) -> list[str] | None:
        """The cells, with those that programs leave out at a line's end; None if they do not fit the header.

        A last line without an end may be cut off, and after a broken quote a line may be a part of a text.
        """
        fit = self._trimmed(cells)
        missing = self.width - len(cells)
        if fit is not None or missing < 0 or not self._lenient:
            return fit
        whole = self._pads and len(lines.record) == 1 and line.endswith("\n")
        return cells + [""] * missing if whole or len(cells) >= self.named_width else None


def table_records(text: io.TextIOWrapper, kind: str, reading: Reading, header: HeaderReader) -> Iterator[Record]:
    """Yield the rows of a .csv or .tsv file, after `header` was given its header. Raises DamagedFileError."""
    csv.field_size_limit(4 * MAX_LINE_CHARS)  # above what a record may have, so that csv never complains
    lines = _Lines(text)
    found = _header(lines, kind, reading, header, text.encoding)
    if found is None:
        return
    cutter, names, raw = found
    nameless = {place for place, name in enumerate(names) if not name} if reading.lenient else set()
    named = [name for place, name in enumerate(names) if place not in nameless]
    header.take_header(named, {"": "it has no name"} if nameless else {})
    lenient = reading.lenient
    repeated = raw if lenient and len(names) > 1 else None  # where files were put together
    for line in lines:
        number = lines.number
        del lines.record[:-1]
        try:
            if line is None:
                raise BadRow(TOO_LONG)
            line = bare_line(line) if lenient else line
            if cutter.is_blank(line) or line == repeated:
                yield number, None
                continue
            if line.isspace():
                raise BadRow("empty line")
            cells = cutter.cells(line, lines)
            for part in lines.record:
                check_text(cast(str, part), text.encoding)
            value = dict(zip(names, cells, strict=True))
            if nameless:
                del value[""]
            yield number, value
        except BadRow as bad:
            yield number, bad


def _header(
    lines: _Lines, kind: str, reading: Reading, header: HeaderReader, encoding: str
) -> tuple[_Cutter, list[str], str] | None:
    """How to cut the lines, the columns' names and the line that holds them; None if the file holds nothing.

    Raises DamagedFileError.
    """
    delimiters = _delimiters(kind, reading)
    for line in lines:
        del lines.record[:-1]
        if line is None:
            raise DamagedFileError(f"the header cannot be read: {TOO_LONG}")
        if reading.lenient:
            line = bare_line(line)
            if lines.number == 1 and (said := _SEP_LINE.fullmatch(line)):
                delimiters = [said[1]] if reading.delimiter is None else delimiters
                continue
            if lines.number == 1 and line.startswith(_TYPE_LINE):
                continue
            if is_skipped(line, reading):
                continue
        elif line.isspace():
            raise DamagedFileError("the header cannot be read: empty line")
        cutter, names = _cut_header(line, lines, delimiters, reading, header)
        try:
            for part in lines.record:
                check_text(cast(str, part), encoding)
        except BadRow as bad:
            raise DamagedFileError(f"the header cannot be read: {bad}") from None
        if cutter.delimiter != _USUAL[kind]:
            header.note_separator(cutter.delimiter)
        names = _settled(names, cutter, line, lines) if reading.lenient else names
        cutter.width = len(names)
        cutter.named_width = max((place for place, name in enumerate(names, 1) if name), default=0)
        return cutter, names, line
    return None


def _delimiters(kind: str, reading: Reading) -> list[str]:
    """What may separate the cells: what the job says, or else first what the suffix says."""
    if reading.delimiter is not None:
        return [reading.delimiter]
    usual = _USUAL[kind]
    others = [one for one in (";", "\t", ",", "|") if one != usual]
    return [usual, *others] if reading.lenient else [usual]


def _cut_header(
    line: str, lines: _Lines, delimiters: list[str], reading: Reading, header: HeaderReader
) -> tuple[_Cutter, list[str]]:
    """Cut the header at the first separator that leaves a column for the prompt, or else the most columns."""
    cuts: list[tuple[_Cutter, list[str]]] = []
    broken: BadRow | None = None
    for delimiter in delimiters:
        cutter = _Cutter(delimiter, reading)
        lines.put_back()
        try:
            names = cutter.cells(line, lines)
        except BadRow as bad:
            broken = broken or bad
            continue
        if header.recognises(names if not reading.lenient else [_bare(name) for name in names]):
            return cutter, names
        cuts.append((cutter, names))
    lines.put_back()
    if broken is not None and all(len(names) == 1 for _, names in cuts):
        raise DamagedFileError(f"the header cannot be read: {broken}")
    return max(cuts, key=lambda cut: len(cut[1]))


def _bare(name: str) -> str:
    return name.strip().strip("\ufeff")


def _settled(names: list[str], cutter: _Cutter, line: str, lines: _Lines) -> list[str]:
    """The names without outer spaces.

    Where a space follows each separator of the header, it does so in the rows.
    """
    cutter.skips_spaces = len(names) > 1 and all(name.startswith(" ") for name in names[1:])
    if cutter.skips_spaces and '"' in line:
        lines.put_back()
        names = cutter.cells(line, lines)
    bare = [_bare(name) for name in names]
    return bare if doubled([name for name in bare if name]) is None else names


def _record(line: str, lines: _Lines) -> Iterator[str]:
    """Yield the line and the lines after it, as far as one record may reach."""
    yield line
    size = len(line)
    for more in lines:
        size += len(more or "")
        if more is None or size > MAX_LINE_CHARS or len(lines.record) > MAX_RECORD_LINES:
            return
        yield more
