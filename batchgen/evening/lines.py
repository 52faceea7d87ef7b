"""What a dry run says, as lines for a person or as one JSON object. Both are made from the same `Line`s."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from batchgen.files import to_json

_LABEL_WIDTH = 10


@dataclass(frozen=True, slots=True)
class Line:
    """A line that a person reads: what it is about, and a sentence. `values` is what JSON holds in its place.

    The values of all lines become one object. Where two lines have the same key, lists are joined and objects merged;
    any other value is taken from the later line.
    """

    label: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)


def as_text(lines: Iterable[Line]) -> str:
    """The lines for a person. A line whose label is "" continues the one before; one without a text is for JSON."""
    return "".join(f"{line.label:<{_LABEL_WIDTH}} {line.text}\n" for line in lines if line.text)


def as_json(lines: Iterable[Line]) -> str:
    """One JSON object, in one line."""
    found: dict[str, Any] = {}
    for line in lines:
        for key, value in line.values.items():
            found[key] = _joined(found.get(key), value)
    return to_json(found) + "\n"


def warnings(reasons: Iterable[str]) -> list[Line]:
    """A line for each warning, once. In JSON they are the list `warnings`, which is there even if it is empty."""
    none = Line("", "", {"warnings": []})
    return [none, *(Line("warning", reason, {"warnings": [reason]}) for reason in dict.fromkeys(reasons))]


def _joined(before: Any, value: Any) -> Any:
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    return before | value if isinstance(before, dict) and isinstance(value, dict) else value
