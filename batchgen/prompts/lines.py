"""The text of a prompt file and its lines. Of a line that is too long only a part is held in memory."""

import codecs
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from batchgen.prompts.records import MAX_LINE_CHARS, TOO_LONG, BadRow, Record
from batchgen.prompts.settings import Reading

_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def decoded(raw: io.BufferedReader, encoding: str) -> io.TextIOWrapper:
    """Return the file's text. Line ends become \\n, bad bytes become lone surrogates, and a BOM is obeyed."""
    name = codecs.lookup(encoding).name
    head = raw.peek(4)
    for bom, found in _BOMS:
        if head.startswith(bom) and name.startswith(("utf-8", found)):
            name = found
            break
    return io.TextIOWrapper(raw, encoding=name, errors="surrogateescape", newline=None)


def lines_of(text: io.TextIOWrapper) -> Iterator[str | None]:
    """Yield the lines with their ends, or None for a line that is too long, of which only a part is held."""
    read = text.readline
    while line := read(MAX_LINE_CHARS + 1):
        if len(line) <= MAX_LINE_CHARS or line[-1] == "\n":
            yield line
            continue
        while line and line[-1] != "\n":
            line = read(MAX_LINE_CHARS)
        yield None


def check_text(text: str, encoding: str) -> None:
    """Raise BadRow if text from the file has a NUL or a byte that could not be decoded."""
    if "\0" in text:
        raise BadRow("has a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])  # surrogateescape has put byte 0xff in as U+DCFF
            what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
            raise BadRow(f"not valid {encoding.removesuffix('-sig')}: {what}") from None


def parse_each(
    pieces: Iterable[str | None], parse: Callable[[str], dict[str, Any] | str | None], encoding: str
) -> Iterator[Record]:
    """Yield one record for each piece of text. None stands for a piece that was too long."""
    for number, piece in enumerate(pieces, 1):
        try:
            if piece is None:
                raise BadRow(TOO_LONG)
            check_text(piece, encoding)
            yield number, parse(piece)
        except BadRow as bad:
            yield number, bad


def line_records(
    lines: Iterable[str | None], parse: Callable[[str], dict[str, Any] | str], encoding: str, reading: Reading
) -> Iterator[Record]:
    """Yield one record for each line, None for those that are blank or comments."""

    def parse_line(line: str) -> dict[str, Any] | str | None:
        text = bare_line(line)
        return None if is_skipped(text, reading) else parse(text)

    return parse_each(lines, parse_line if reading.lenient else parse, encoding)


def bare_line(line: str) -> str:
    """The line without a byte order mark, which is within a file where files were put together."""
    return line[1:] if line.startswith("\ufeff") else line


def is_skipped(line: str, reading: Reading) -> bool:
    """Whether a line is blank or a comment."""
    return not line or line.isspace() or (reading.comment is not None and line.startswith(reading.comment))


def txt_value(line: str) -> str:
    """The prompt of a line."""
    return line.strip(" \t\n")
