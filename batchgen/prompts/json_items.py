"""Reading JSON: the value of a line or an item, and the items of an array that is read as a stream."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Protocol

from batchgen.prompts.records import (
    MAX_DEPTH,
    MAX_LINE_CHARS,
    BadRow,
    DamagedFileError,
    check_value,
    doubled,
    shown,
)

_CHUNK_CHARS = 2**16
SPACE = " \t\n\r"
NOT_ROWS = "neither a JSON array nor an object on each line"


def jsonl_value(line: str, lenient: bool) -> dict[str, Any] | str:
    """The string or object of a JSON line; `lenient` takes NaN for null. Raises BadRow."""
    try:
        return _value(line, lenient)
    except json.JSONDecodeError as error:
        raise BadRow("empty line" if line.isspace() else f"not valid JSON: {error.msg}") from None


def item_value(item: str, lenient: bool) -> dict[str, Any] | str:
    """The string or object of an item of a JSON array, as `jsonl_value`. Raises BadRow, DamagedFileError."""
    try:
        return _value(item, lenient)
    except json.JSONDecodeError as error:  # where this item ends, and so where the next one begins, is unknown
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
# What Python's json writes for numbers that JSON does not have is taken as from parquet.
_CONSTANTS = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
_LENIENT_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_CONSTANTS.get)


def _value(text: str, lenient: bool) -> dict[str, Any] | str:
    """Return the object or string that the text holds. Raises BadRow, or JSONDecodeError if it is not JSON."""
    text = text.strip(SPACE)
    try:
        value, end = (_LENIENT_DECODER if lenient else _DECODER).raw_decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise BadRow(f"nested more than {MAX_DEPTH} deep") from None
    except ValueError:  # int() refuses thousands of digits
        raise BadRow("has a number with too many digits") from None
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value)
    if not isinstance(value, dict | str):
        raise BadRow(f"must be an object or a string, got {shown(value)}")
    return value


class Text(Protocol):
    """Text that is read in pieces; the last one is empty."""

    def read(self, size: int, /) -> str:
        """The next piece."""


# A string that ends in this chunk is one token.
_OUTSIDE_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_INSIDE_STRING = re.compile(r'"|\\.', re.DOTALL)


def pieces(text: Text) -> Iterator[tuple[str, str]]:
    """Cut the text at the outermost brackets and the commas between items. Yields each piece and what ends it.

    At the end of a chunk, where the piece continues in the next one, what ends it is "".
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
        # A backslash that ends the chunk escapes the first character of the next chunk.
        skip = int(in_string and chunk.endswith("\\", at))


def item_texts(text: Text) -> Iterator[str | None]:
    """Yield the text of each item of the array, or None for an item that is too long. Raises DamagedFileError.

    It does not use ijson, whose parser turns the escape of a lone surrogate into "?", keeps the last of two members
    with the same name, and gives up the whole file for one bad byte or large number.
    """
    place, parts, size, first = "before", list[str](), 0, True
    for piece, end in pieces(text):
        if place != "inside":
            if piece.strip(SPACE) or end not in ("", "[" if place == "before" else ""):
                problem = NOT_ROWS if place == "before" else "text after the array's end"
                raise DamagedFileError(problem)
            place = "inside" if end else place
            continue
        size += len(piece)
        if size <= MAX_LINE_CHARS:
            parts.append(piece)
        if not end:
            continue
        if end == "}":
            raise DamagedFileError("there is a } where the array should continue")
        item = "".join(parts) if size <= MAX_LINE_CHARS else None
        if not first or end == "," or item is None or item.strip(SPACE):  # otherwise it is []
            yield item
        parts, size, first = [], 0, False
        place = "after" if end == "]" else place
    if place == "inside":
        raise DamagedFileError("the file ends inside the array")
