"""Prompt files: which ones a job names, and their rows; a bad row becomes a Reject, a bad file a PromptError."""

import codecs
import difflib
import glob
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from batchgen.bounds import BOUNDS, KEY_PATTERN, MAX_PROMPT_CHARS, PLANNED_KEY_PATTERN, SEED_LIMIT
from batchgen.errors import PromptError
from batchgen.prompt_formats import FORMATS, BadRow, DamagedFileError, doubled, format_of, read_records, shown
from batchgen.types import Columns, Reject, Row

_PROMPT_COLUMNS = ("prompt", "Prompt", "PROMPT")
_PROMPT_NAMES = ("prompt", "text", "caption", "description")  # in any mix of cases
_OTHER_FIELDS = tuple(column.name for column in fields(Columns) if column.name != "prompt")
_ITEM_FORMATS = (".json", ".parquet")


def find_files(patterns: Sequence[str], base: Path) -> list[Path]:
    """Return the prompt files that paths and globs (relative to `base`, ** and ~ allowed) name, each once.

    Raises PromptError if a path is missing or a directory, a glob matches no file, or a suffix is unknown.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        path = base / os.path.expanduser(pattern)
        matches = [path] if os.path.exists(path) else _glob(pattern, base) if glob.has_magic(pattern) else []
        if not matches:
            raise PromptError(_missing(pattern, path, base))
        for match in matches:
            if not match.is_file():
                raise PromptError(f"{_name(match)} is not a file; name its files, or a glob like *.csv")
            _known_format(match)
            found.setdefault(os.path.realpath(match), match)
    return list(found.values())


def _glob(pattern: str, base: Path) -> list[Path]:
    names = glob.glob(os.path.expanduser(pattern), root_dir=base, recursive=True)
    return [path for name in sorted(set(names)) if not (path := base / name).is_dir()]


def _missing(pattern: str, path: Path, base: Path) -> str:
    if glob.has_magic(pattern):
        return f"no prompt file matches {_name(pattern)} in {_name(base.absolute())}"
    folder = path.absolute().parent
    try:
        names = os.listdir(folder)
    except OSError as error:
        return f"no prompt file {_name(pattern)}: folder {_name(folder)} cannot be read ({error.strerror})"
    near = difflib.get_close_matches(path.name, names)
    hint = f"; the nearest names there: {', '.join(map(_name, near))}" if near else ""
    return f"no prompt file {_name(pattern)} in {_name(folder)}{hint}"


def _known_format(path: Path) -> str:
    kind = format_of(path)
    if kind is None:
        raise PromptError(f"{_name(path)}: unknown suffix; known are {' '.join(FORMATS)}, also with .gz behind")
    return kind


def _name(path: Path | str) -> str:
    """Return the path for a message: as it is, unless it could do something to a terminal."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def read_prompts(
    files: Sequence[Path], columns: Columns, encoding: str = "utf-8-sig", first_file: int = 0
) -> Iterator[Row | Reject]:
    """Return an iterator over the rows of the files, in their order, with a Reject for each that cannot be used.

    It holds one row at a time, or some lines of a broken one. `first_file` is the first file's Row.file.
    Raises PromptError: at once if `encoding` or `columns` is not possible; while iterating if a file cannot be
    read to its end, is not text in that encoding, or has no column for the prompt.
    """
    try:
        codecs.lookup(encoding)
        "a".encode(encoding)  # the codecs that are not for text are known only by use
    except (LookupError, ValueError):
        raise PromptError(f"job.encoding: {shown(encoding)} is not a known text encoding") from None
    named = [getattr(columns, column.name) for column in fields(columns)]
    twice = doubled([name for name in named if name is not None])
    if twice is not None:
        raise PromptError(f"job.columns: {shown(twice)} is named for more than one field")
    return _rows(files, columns, encoding, first_file)


def _rows(files: Sequence[Path], columns: Columns, encoding: str, first_file: int) -> Iterator[Row | Reject]:
    for number, path in enumerate(files, first_file):
        kind = _known_format(path)
        reader = _RowReader(number, path, columns, cells_are_text=kind in (".csv", ".tsv"))
        line = 0
        try:
            for place, (line, value) in enumerate(read_records(path, encoding, reader.take_header)):
                yield reader.row(place, line, value)
        except UnicodeError as error:
            problem = f"not valid {shown(encoding)}{_after(kind, line)} ({_one_line(str(error))})"
            raise PromptError(f"{_name(path)}: {problem}; set job.encoding") from error
        except (OSError, EOFError, zlib.error, DamagedFileError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problem = f"cannot be read{_after(kind, line)}: {_one_line(reason)}"
            raise PromptError(f"{_name(path)}: {problem}") from error


def _after(kind: str, line: int) -> str:
    return f" after {'item' if kind in _ITEM_FORMATS else 'line'} {line}" if line else ""


def _one_line(text: str) -> str:
    text = " ".join(text.split())[:300]
    return text if text.isprintable() else ascii(text)


class _RowReader:
    """Makes Rows of one file's records."""

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
        """Settle which columns hold the fields, and return them; raise PromptError if they cannot be told."""
        twice = doubled(names)
        if twice is not None:
            raise PromptError(f"{_name(self._path)}: two columns are named {shown(twice)}")
        prompt = self._prompt if self._prompt is not None else _find_prompt(tuple(names), self._taken)
        if prompt is None or prompt not in names:
            missing = "for the prompt" if prompt is None else shown(prompt)
            listed = ", ".join(map(shown, names[:20])) + (" and more" if len(names) > 20 else "")
            problem = f"no column {missing}, only {listed}; set job.columns.prompt"
            raise PromptError(f"{_name(self._path)}: {problem}")
        self._prompt = prompt
        self._fields = [(name, column) for name, column in self._fields if column in names]
        return [prompt, *(column for _, column in self._fields)]

    def row(self, place: int, line: int, value: dict[str, Any] | str | BadRow) -> Row | Reject:
        """Return what a record holds, as a Row if all of it can be used."""
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
    """Return the number that a cell of a table spells, the cell without its outer spaces if it spells none."""
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
    if isinstance(value, int) and value.bit_length() > 64:  # may be too large for the float in Bound.problem
        raise BadRow(f"{name} must be between {bound.low} and {bound.high}, got {shown(value)}")
    problem = bound.problem(name, value)
    if problem:
        raise BadRow(problem)
    return float(value) if bound.kind is float else int(value)


def _check_copies(found: dict[str, Any]) -> None:
    seed, copies = found.get("seed"), found.get("images_per_prompt")
    if seed is not None and copies is not None and seed + copies - 1 >= SEED_LIMIT:
        raise BadRow(f"seed {seed} + images_per_prompt {copies} goes beyond the last seed, {SEED_LIMIT - 1}")
