"""The formats of prompt files: each is read as a stream of records, where a broken record costs only itself."""

import codecs
import csv
import gzip
import io
import json
import math
import re
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # each also with .gz behind it
MAX_LINE_CHARS = 2**20  # of a line, of a quoted record of many lines, of an item of a .json file
MAX_RECORD_LINES = 1_000
MAX_DEPTH = 100  # of nested JSON: what comes after may recurse (json, pickle) and must not run out of stack
_TOO_LONG = f"longer than {MAX_LINE_CHARS:,} characters"
_CHUNK_CHARS = 2**16
_PARQUET_BATCH_ROWS = 1_000
_JSON_SPACE = " \t\n\r"
_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


class DamagedFileError(Exception):
    """The file as a whole is broken: it breaks off, or is not what its suffix says."""


class BadRow(Exception):
    """A record that cannot be used, and the reason; raised within this module, yielded to its users."""


# The line or item from 1, and what it holds: cells by column (the reader's to keep), a bare prompt, or neither.
Record = tuple[int, dict[str, Any] | str | BadRow]
# Takes the names in a header, returns those that hold fields; the others travel as they are.
OnHeader = Callable[[Sequence[str]], Collection[str]]


def format_of(path: Path) -> str | None:
    """Return which of FORMATS the file is in, going by its suffix; None if in none of them."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in FORMATS else None


def shown(value: object) -> str:
    """Return the value for a message: ASCII, on one line, at most 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def doubled(names: Sequence[str]) -> str | None:
    """Return one of the names that are there more than once, None if there is none."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    return name if count > 1 else None


def read_records(path: Path, encoding: str, on_header: OnHeader) -> Iterator[Record]:
    """Yield the records of a file; `on_header` is called once, before the first record of a format with a header.

    Raises DamagedFileError, OSError, EOFError, zlib.error (gzip) or UnicodeError where the file cannot be read.
    """
    kind, zipped = format_of(path), path.name.lower().endswith(".gz")
    with gzip.open(path) if zipped else path.open("rb") as raw:
        if kind != ".parquet":
            yield from _text_records(cast(io.BufferedReader, raw), kind, encoding, on_header)
        elif not zipped:
            yield from _parquet(cast(IO[bytes], raw), on_header)
        else:
            with tempfile.TemporaryFile() as copy:  # parquet is read from its end, gzip from its start
                shutil.copyfileobj(raw, copy)
                yield from _parquet(copy, on_header)


def _text_records(raw: io.BufferedReader, kind: str | None, encoding: str, on_header: OnHeader) -> Iterator[Record]:
    with _decoded(raw, encoding) as text:
        if kind in (".csv", ".tsv"):
            yield from _table(text, kind, on_header)
        elif kind == ".json":
            yield from _each(_json_items(text), _json_item, text.encoding)
        elif kind == ".txt":
            yield from _each(_lines(text), _txt_value, text.encoding)
        else:
            yield from _each(_lines(text), _jsonl_value, text.encoding)


def _decoded(raw: io.BufferedReader, encoding: str) -> io.TextIOWrapper:
    """Return the file's text, where all line ends are \\n and bad bytes lone surrogates; a BOM is obeyed."""
    name = codecs.lookup(encoding).name
    head = raw.peek(4)
    for bom, found in _BOMS:
        if head.startswith(bom) and name.startswith(("utf-8", found)):
            name = found
            break
    return io.TextIOWrapper(raw, encoding=name, errors="surrogateescape", newline=None)


def _lines(text: io.TextIOWrapper) -> Iterator[str | None]:
    """Yield the lines with their ends, None in place of an over-long one, of which only a part is ever held."""
    read = text.readline
    while line := read(MAX_LINE_CHARS + 1):
        if len(line) <= MAX_LINE_CHARS or line[-1] == "\n":
            yield line
            continue
        while line and line[-1] != "\n":
            line = read(MAX_LINE_CHARS)
        yield None


def _check_text(text: str, encoding: str) -> None:
    """Raise BadRow where text from the file has a NUL or a byte that could not be decoded."""
    if "\0" in text:
        raise BadRow("has a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])  # surrogateescape has put byte 0xff in as U+DCFF
            what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
            raise BadRow(f"not valid {encoding.removesuffix('-sig')}: {what}") from None


def _check_value(value: object) -> None:
    """Raise BadRow where a string anywhere in the value has a NUL or a lone surrogate, or it nests too deeply."""
    todo: list[tuple[object, int, object]] = [(value, 0, "it")]
    while todo:
        item, depth, name = todo.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise BadRow(f"{shown(name)} has a NUL character")
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise BadRow(f"{shown(name)} has a lone surrogate, U+{ord(item[error.start]):04X}") from None
        elif isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise BadRow(f"nested more than {MAX_DEPTH} deep")
            todo.extend((member, depth + 1, member if depth == 0 else name) for member in item)
            if isinstance(item, dict):
                todo.extend((member, depth + 1, key if depth == 0 else name) for key, member in item.items())


def _each(
    pieces: Iterator[str | None], parse: Callable[[str], dict[str, Any] | str], encoding: str
) -> Iterator[Record]:
    for number, piece in enumerate(pieces, 1):
        try:
            if piece is None:
                raise BadRow(_TOO_LONG)
            _check_text(piece, encoding)
            yield number, parse(piece)
        except BadRow as bad:
            yield number, bad


def _txt_value(line: str) -> str:
    return line.strip(" \t\n")


class _Lines:
    """The lines of a file, some of which can be put back and read again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0  # of the latest line
        self.record: list[str | None] = []  # the lines of the record at hand, kept short by who reads them
        self._fresh = _lines(text)
        self._again: deque[str | None] = deque()

    def __iter__(self) -> Iterator[str | None]:
        return self

    def __next__(self) -> str | None:
        line = self._again.popleft() if self._again else next(self._fresh)
        self.number += 1
        self.record.append(line)
        return line

    def put_back(self) -> None:
        """Put the record's lines back, all but the first."""
        self._again.extendleft(reversed(self.record[1:]))
        self.number -= len(self.record) - 1
        del self.record[1:]


def _table(text: io.TextIOWrapper, kind: str, on_header: OnHeader) -> Iterator[Record]:
    csv.field_size_limit(4 * MAX_LINE_CHARS)  # beyond what a record may have, so that it never strikes
    cells_of = _csv_cells if kind == ".csv" else _tsv_cells
    lines = _Lines(text)
    header: list[str] = []
    for line in lines:
        number = lines.number
        del lines.record[:-1]
        value: dict[str, Any] | BadRow
        try:
            if line is None:
                raise BadRow(_TOO_LONG)
            if line.isspace():
                raise BadRow("empty line")
            cells = cells_of(line, lines, len(header))
            for part in lines.record:
                _check_text(cast(str, part), text.encoding)
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
    """Like _csv_cells, but quotes are text where a line has the right number of columns only so."""
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
    """Return the cells of the record that begins with `line`, taking from `lines` what else belongs to it.

    Raises BadRow; of a record that breaks in a later line only the first is used up, for the quote that holds
    the others together may be a stray one. A `width` of 0 stands for any number of columns.
    """
    if '"' not in line:  # then csv.reader would do no more than this, at a multiple of the time
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
    """Yield the line and those after it, as far as one record may reach."""
    yield line
    size = len(line)
    for more in lines:
        size += len(more or "")
        if more is None or size > MAX_LINE_CHARS or len(lines.record) > MAX_RECORD_LINES:
            return
        yield more


def _jsonl_value(line: str) -> dict[str, Any] | str:
    try:
        return _json_value(line)
    except json.JSONDecodeError as error:
        raise BadRow("empty line" if line.isspace() else f"not valid JSON: {error.msg}") from None


def _json_item(item: str) -> dict[str, Any] | str:
    try:
        return _json_value(item)
    except json.JSONDecodeError as error:  # where it ends, and so where the next one begins, is a guess then
        raise DamagedFileError(f"the next item is not valid JSON: {error.msg}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRow(f"has the member {shown(doubled([name for name, _ in pairs]))} more than once")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadRow(f"has a number out of range: {shown(text)}")
    return number


def _no_constant(text: str) -> float:
    raise BadRow(f"has {text}, which is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)


def _json_value(text: str) -> dict[str, Any] | str:
    """Return the object or string that the text holds; raise BadRow, or JSONDecodeError if it is not JSON."""
    text = text.strip(_JSON_SPACE)
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise BadRow(f"nested more than {MAX_DEPTH} deep") from None
    except ValueError:  # int() refuses thousands of digits
        raise BadRow("has a number with too many digits") from None
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _check_value(value)
    if not isinstance(value, dict | str):
        raise BadRow(f"must be an object or a string, got {shown(value)}")
    return value


# A whole string, if it ends in this chunk, is one token.
_OUTSIDE_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_INSIDE_STRING = re.compile(r'"|\\.', re.DOTALL)


def _json_pieces(text: io.TextIOWrapper) -> Iterator[tuple[str, str]]:
    """Cut the text at the outermost brackets and the commas between items: yield each piece and what ends it.

    That is "" at the end of a chunk, where the piece goes on.
    """
    depth, in_string, skip = 0, False, 0
    while chunk := text.read(_CHUNK_CHARS):
        start, at = 0, skip
        while found := (_INSIDE_STRING if in_string else _OUTSIDE_STRING).search(chunk, at):
            at = found.end()
            token = found[0]
            if in_string or token == '"':
                in_string = token != '"' or not in_string
                continue
            opens, closes = token in "[{", token in "]}"
            if depth == 0 or (depth == 1 and (closes or token == ",")):
                yield chunk[start : found.start()], token
                start = at
            depth += opens - closes
        yield chunk[start:], ""
        # A backslash that ends the chunk has found no partner: that is the first character of the next one.
        skip = int(in_string and chunk.endswith("\\", at))


def _json_items(text: io.TextIOWrapper) -> Iterator[str | None]:
    """Yield the text of each item of the array, None in place of an over-long one.

    Not by ijson: its parser makes a lone surrogate's escape a "?", keeps the last of two members of one name,
    and gives up the whole file for one bad byte or large number.
    """
    place, parts, size, first = "before", list[str](), 0, True
    for piece, end in _json_pieces(text):
        if place != "inside":
            if piece.strip(_JSON_SPACE) or end not in ("", "[" if place == "before" else ""):
                problem = "not a JSON array" if place == "before" else "text after the array's end"
                raise DamagedFileError(problem)
            place = "inside" if end else place
            continue
        size += len(piece)
        if size <= MAX_LINE_CHARS:
            parts.append(piece)
        if not end:
            continue
        if end == "}":
            raise DamagedFileError("a } where the array should go on")
        item = "".join(parts) if size <= MAX_LINE_CHARS else None
        if not first or end == "," or item is None or item.strip(_JSON_SPACE):  # else it is []
            yield item
        parts, size, first = [], 0, False
        place = "after" if end == "]" else place
    if place == "inside":
        raise DamagedFileError("breaks off within the array")


def _parquet(file: IO[bytes], on_header: OnHeader) -> Iterator[Record]:
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    if file.seek(0, io.SEEK_END) == 0:
        return
    number = 0
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        schema = parquet.schema_arrow
        fields = set(on_header(schema.names))
        binary = {column.name for column in schema if _is_binary(column.type)}
        if fields & binary:
            raise DamagedFileError(f"the column {shown(min(fields & binary))} is binary, not text")
        names = [name for name in schema.names if name not in binary]
        for batch in parquet.iter_batches(_PARQUET_BATCH_ROWS, columns=names):
            for value in _parquet_rows(batch, fields):
                number += 1
                yield number, value
        if number != parquet.metadata.num_rows:
            raise DamagedFileError(f"holds {number} rows instead of {parquet.metadata.num_rows}")
    except (pa.ArrowException, ValueError, RecursionError) as error:
        raise DamagedFileError(str(error)) from error


def _is_binary(kind: Any) -> bool:
    """Say whether the values of an Arrow type hold bytes, at any depth."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _is_binary(kind.value_type)
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if any(test(kind) for test in tests):
        return True
    return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))


def _parquet_rows(batch: Any, fields: Collection[str]) -> Iterator[dict[str, Any] | BadRow]:
    from pyarrow import ArrowException

    others = [name for name in batch.schema.names if name not in fields]
    try:
        rows = _as_text(batch, others).to_pylist()
    except (ArrowException, ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield BadRow(f"a value cannot be read: {shown(str(error))}")
            return
        for index in range(batch.num_rows):  # to find the rows that are to blame
            yield from _parquet_rows(batch.slice(index, 1), fields)
        return
    for row in rows:
        try:
            _check_value(row)
            row.update({name: _plain(row[name]) for name in others})
            yield row
        except BadRow as bad:
            yield bad


def _as_text(batch: Any, names: Sequence[str]) -> Any:
    """Return the batch with the dates and times among these columns as text: Python's hold no nanoseconds."""
    import pyarrow as pa

    for index, column in enumerate(batch.schema):
        kind = column.type
        if column.name in names and pa.types.is_temporal(kind):
            batch = batch.set_column(index, column.name, batch.column(index).cast(pa.string()))
    return batch


def _plain(value: Any) -> Any:
    """Return the value with nothing in it that JSON does not know; not-a-number is None."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return str(value)
