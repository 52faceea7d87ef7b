"""The rows of a prompt file, made from its records: which columns hold the fields, and what each field may hold."""

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from batchgen.config.bounds import BOUNDS, KEY_PATTERN, MAX_PROMPT_CHARS, PLANNED_KEY_PATTERN, SEED_LIMIT
from batchgen.errors import PromptError
from batchgen.prompts.records import BadRow, doubled, path_name, shown
from batchgen.types import Columns, Reject, Row

_PROMPT_COLUMNS = ("prompt", "Prompt", "PROMPT")
_PROMPT_NAMES = ("prompt", "text", "caption", "description")  # in any mix of cases
_OTHER_FIELDS = tuple(column.name for column in fields(Columns) if column.name != "prompt")


class RowReader:
    """Makes Rows from the records of one file."""

    def __init__(self, file: int, path: Path, columns: Columns, cells_are_text: bool) -> None:
        self._file = file
        self._source = str(path)
        self._path = path
        self._prompt = columns.prompt  # None: look for it in each record
        named = [(name, getattr(columns, name)) for name in _OTHER_FIELDS]
        self._fields = [(name, column) for name, column in named if column is not None]
        self._taken = frozenset(column for _, column in self._fields)
        self._cells_are_text = cells_are_text

    def take_header(self, names: Sequence[str]) -> list[str]:
        """Settle which columns hold the fields, and return them. Raises PromptError if that cannot be known."""
        twice = doubled(names)
        if twice is not None:
            raise PromptError(f"{path_name(self._path)}: two columns are named {shown(twice)}")
        prompt = self._prompt if self._prompt is not None else _find_prompt(tuple(names), self._taken)
        if prompt is None or prompt not in names:
            missing = "for the prompt" if prompt is None else shown(prompt)
            listed = ", ".join(map(shown, names[:20])) + (" and more" if len(names) > 20 else "")
            problem = f"no column {missing}, only {listed}; set job.columns.prompt"
            raise PromptError(f"{path_name(self._path)}: {problem}")
        self._prompt = prompt
        self._fields = [(name, column) for name, column in self._fields if column in names]
        return [prompt, *(column for _, column in self._fields)]

    def row(self, place: int, line: int, value: dict[str, Any] | str | BadRow) -> Row | Reject:
        """Return what a record holds: a Row if all of it can be used, otherwise a Reject."""
        try:
            if isinstance(value, str):
                return Row(self._file, place, self._source, line, _prompt(value))
            if isinstance(value, BadRow):
                raise value
            prompt = _prompt(value.pop(self._prompt_column(value), None))
            found: dict[str, Any] = {}
            for name, column in self._fields:
                cell = value.pop(column, None)
                if self._cells_are_text and name in BOUNDS:
                    cell = _from_text(name, cell)
                if cell is not None and cell != "":
                    found[name] = _field(name, cell)
            if found:
                _check_copies(found)
            return Row(self._file, place, self._source, line, prompt, extra=value, **found)
        except BadRow as bad:
            return Reject(self._source, line, str(bad))

    def _prompt_column(self, value: dict[str, Any]) -> str:
        if self._prompt is not None:
            return self._prompt
        if "prompt" in value and "prompt" not in self._taken:
            return "prompt"
        column = _find_prompt(tuple(value), self._taken)
        if column is None:
            raise BadRow(f"no prompt: none of {', '.join(_PROMPT_NAMES)} is there")
        return column


@lru_cache(maxsize=16)  # most objects of a file have the same members
def _find_prompt(names: tuple[str, ...], taken: frozenset[str]) -> str | None:
    free = [name for name in names if name not in taken]
    for column in _PROMPT_COLUMNS:
        if column in free:
            return column
    return next((name for wanted in _PROMPT_NAMES for name in free if name.lower() == wanted), None)


def _prompt(value: Any) -> str:
    if value is None:
        raise BadRow("no prompt")
    text = _text("prompt", value)
    if not text or text.isspace():
        raise BadRow("empty prompt")
    return text


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} must be text, got {shown(value)}")
    if len(value) > MAX_PROMPT_CHARS:
        raise BadRow(f"{name} has {len(value):,} characters, more than {MAX_PROMPT_CHARS:,}")
    return value


def _key(value: Any) -> str:
    key = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(key, str) or not KEY_PATTERN.fullmatch(key):
        raise BadRow(f"key must be 1 to 64 of A-Z a-z 0-9 _ -, got {shown(value)}")
    if PLANNED_KEY_PATTERN.fullmatch(key):
        raise BadRow(f"key has the reserved form of the keys that batchgen gives, got {shown(value)}")
    return key


def _field(name: str, value: Any) -> str | int | float:
    if name == "key":
        return _key(value)
    return _text(name, value) if name == "negative_prompt" else _number(name, value)


def _from_text(name: str, cell: str) -> int | float | str:
    """Return the number in a table's cell, or the cell without its outer spaces if it holds no number."""
    text = cell.strip()
    if BOUNDS[name].kind is int:
        digits = text.removeprefix("-")
        return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 640 else text
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def _number(name: str, value: Any) -> int | float:
    bound = BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        expected = "a whole number" if bound.kind is int else "a number"
        raise BadRow(f"{name} must be {expected}, got {shown(value)}")
    if isinstance(value, int) and value.bit_length() > 64:  # its digits must not fill the reason
        raise BadRow(f"{name} must be between {bound.low} and {bound.high}, got {shown(value)}")
    problem = bound.problem(name, value)
    if problem:
        raise BadRow(problem)
    return float(value) if bound.kind is float else int(value)


def _check_copies(found: dict[str, Any]) -> None:
    seed, copies = found.get("seed"), found.get("images_per_prompt")
    if seed is not None and copies is not None and seed + copies - 1 >= SEED_LIMIT:
        raise BadRow(f"seed {seed} + images_per_prompt {copies} goes beyond the last seed, {SEED_LIMIT - 1}")
