"""The records of JSON files: an array, a row on each line, or an object with an array of rows, as COCO's files are."""

import io
import json
import re
from collections.abc import Iterator
from functools import partial

from batchgen.prompts.advice import object_advice
from batchgen.prompts.json_items import NOT_ROWS, SPACE, item_texts, item_value, jsonl_value, pieces
from batchgen.prompts.lines import line_records, lines_of, parse_each
from batchgen.prompts.mapping import layout_of
from batchgen.prompts.records import MAX_LINE_CHARS, DamagedFileError, HeaderReader, Record, told
from batchgen.prompts.settings import Reading

_ARRAYS = ("annotations", "prompts")  # the members whose array may hold the rows
_MEMBER = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*(?=(\S))', re.DOTALL)
_MAX_NAME_CHARS = 1_000
_MOST_NAMES = 1_000


def json_records(text: io.TextIOWrapper, kind: str, reading: Reading, header: HeaderReader) -> Iterator[Record]:
    """Yield the records of a .json, .jsonl or .ndjson file. Raises DamagedFileError if it holds no rows."""
    form = _form(text, kind, reading) if reading.lenient else "array" if kind == ".json" else "lines"
    if form == "lines":
        return line_records(lines_of(text), partial(jsonl_value, lenient=reading.lenient), text.encoding, reading)
    items = item_texts(text) if form == "array" else _document_items(text, header)
    return parse_each(items, partial(item_value, lenient=reading.lenient), text.encoding)


def _form(text: io.TextIOWrapper, kind: str, reading: Reading) -> str:
    """How the file holds its rows, by its beginning: in "lines", an "array" or a "document"."""
    head = text.read(MAX_LINE_CHARS + 1).lstrip(SPACE + "\ufeff")
    text.seek(0)
    first, _, rest = head.partition("\n")
    whole = _loaded(first)
    more = bool(rest.strip(SPACE))
    if kind != ".json" and (more or not head) and whole is not None:
        return "lines"
    if head.startswith("[") or not head:
        return "array" if kind == ".json" or head else "lines"
    if isinstance(whole, dict) and not more and not _is_row(whole, kind, reading):
        return "document"
    if whole is not None:
        return "lines"
    if head.startswith("{") and (kind == ".json" or first.strip(SPACE) == "{"):
        return "document"
    return "array" if kind == ".json" else "lines"


def _loaded(line: str) -> object:
    """The value that a line holds; None if it holds none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_row(value: dict[str, object], kind: str, reading: Reading) -> bool:
    """Whether the only object of a file is a row, and not what holds the rows."""
    if kind != ".json":
        return True
    if "prompt" not in value and any(isinstance(value.get(name), list) for name in _ARRAYS):
        return False
    prompt = layout_of(tuple(value), reading).prompt
    return prompt is not None and isinstance(value[prompt], str | list)


def _document_items(text: io.TextIOWrapper, header: HeaderReader) -> Iterator[str | None]:
    """Yield the text of each item of the array in the object that the file holds. Raises DamagedFileError."""
    stream = pieces(text)
    members = dict[str, str]()  # with the beginning of the text of each
    found, end = False, ""
    while end not in ("}", "end"):
        piece, end = _begin(stream)
        member = _MEMBER.match(piece)
        if member is not None and member[1] in _ARRAYS and member[2] == "[" and not found:
            found = True
            rows = _Member(piece[member.end() :], end, stream)
            yield from item_texts(rows)
            end = rows.end
        elif member is not None and len(members) < _MOST_NAMES:
            members[member[1]] = piece[member.end() :][:_MAX_NAME_CHARS]
        while end == "":
            _, end = next(stream, ("", "end"))
    if not found:
        listed = ", ".join(map(told, list(members)[:8])) or "nothing"
        raise DamagedFileError(f"{NOT_ROWS}, but an object with {listed}; {object_advice(members)}")
    if end == "end":
        raise DamagedFileError("the file ends inside the object")
    header.note_beside(list(members))


def _begin(stream: Iterator[tuple[str, str]]) -> tuple[str, str]:
    """The next piece, with what goes on from it where a chunk ends within a name, and what ends it."""
    piece, end = next(stream, ("", "end"))
    while end == "" and len(piece) < _MAX_NAME_CHARS:
        more, end = next(stream, ("", "end"))
        piece += more
    return piece, end


class _Member:
    """The text of one member of an object, of which the first piece was read."""

    def __init__(self, first: str, end: str, stream: Iterator[tuple[str, str]]) -> None:
        self._first = first
        self.end = end  # what ends it, once it is read
        self._stream = stream

    def read(self, size: int, /) -> str:
        """The next piece, whatever its size; "" after the last."""
        piece, self._first = self._first, ""
        while not piece and self.end == "":
            piece, self.end = next(self._stream, ("", "end"))
        return piece
