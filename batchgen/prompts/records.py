"""What all readers of prompt files share: records, what makes a record bad, and how messages name things."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

MAX_LINE_CHARS = 2**20  # of a line, of a quoted record of many lines, of an item of a .json file
_SHOWN_CHARS = 60
MAX_DEPTH = 100  # of nested JSON: later code may recurse (json, pickle) and must not run out of stack
TOO_LONG = f"longer than {MAX_LINE_CHARS:,} characters"


class DamagedFileError(Exception):
    """The file as a whole is broken: it ends too early, or is not what its suffix says."""


class BadRow(Exception):
    """A record that cannot be used, and the reason. It is raised where that is found, and the readers yield it."""


# The number of the line or item, from 1, and what it holds: cells by column (the reader may keep and change the
# dictionary), a bare prompt, something that cannot be used, or None for a line that is blank or to be skipped.
Record = tuple[int, dict[str, Any] | str | BadRow | None]


class HeaderReader(Protocol):
    """What a format asks about the names in its header."""

    def recognises(self, names: Sequence[str]) -> bool:
        """Whether the prompt is in one of these columns."""

    def take_header(self, names: Sequence[str], unread: Mapping[str, str]) -> Collection[str]:
        """Take the header, and return the names that hold fields; the other columns are passed on as they are."""

    def note_separator(self, separator: str) -> None:
        """Note how the cells of a table are separated, where that is not what its suffix says."""

    def note_beside(self, names: Sequence[str]) -> None:
        """Note the members of an object beside the array that holds the rows."""


def shown(value: object) -> str:
    """Return the value for a message: ASCII, on one line, at most 60 characters."""
    return _shortened(ascii(value))


def told(value: object) -> str:
    """Return the value for a person to read: as `shown`, but with printable text as it is."""
    text = repr(value)
    return _shortened(text if text.isprintable() else ascii(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def path_name(path: Path | str) -> str:
    """Return the path for a message: as it is, unless it could do something to a terminal."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def doubled(names: Sequence[str]) -> str | None:
    """Return one of the names that appear more than once; None if there is none."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    return name if count > 1 else None


def check_value(value: object) -> None:
    """Raise BadRow if a string anywhere in the value has a NUL or lone surrogate, or the value nests too deeply."""
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
