"""What was found in the prompt files of a command, collected while they are read, for a person to look at.

It is shown by the dry run: which column became which field, which columns only travel into the sample's JSON, which
are not read and why, and one example of what will be made.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchgen.prompts.mapping import NAMES, ONLY_BY_NAME, Layout, known_name, named_columns
from batchgen.prompts.records import path_name, told
from batchgen.prompts.settings import Reading
from batchgen.types import Prompt, Reject

_MOST_SHAPES = 1_000  # of the objects of one file, by the names of their members
_MOST_NAMES = 200
_SHOWN_NAMES = 12
_SHOWN_KINDS = 5  # of files that do not have the same columns
_SHOWN_CHARS = 60  # of an example's text


@dataclass
class FileColumns:
    """The columns of one file. `fields`: the columns of each field; `travel` and `unread`: why a column is there.

    `missing`: (field, column) of what job.columns names and nothing that was read so far has. `notes`: those of the
    `Found` that it belongs to.
    """

    file: str
    reading: Reading
    separator: str | None = None
    fields: dict[str, list[str]] = field(default_factory=dict)
    travel: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    missing: set[tuple[str, str]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    _shapes: set[tuple[str, ...]] = field(default_factory=set)

    def take(self, layout: Layout, names: Sequence[str], unread: Mapping[str, str]) -> None:
        """Note the columns of a table or the members of an object."""
        shape = tuple(names)
        if shape in self._shapes:
            return
        if self.reading.lenient:
            missing = set(layout.missing(self.reading))
            self.missing = self.missing & missing if self._shapes else missing
        if len(self._shapes) < _MOST_SHAPES:
            self._shapes.add(shape)
        taken = ({} if layout.prompt is None else {"prompt": layout.prompt}) | dict(layout.fields)
        for name, column in taken.items():
            columns = self.fields.setdefault(name, [])
            if column not in columns and len(columns) < _MOST_NAMES:
                columns.append(column)
        self.unread.update(unread)
        for name in names:
            if name not in taken.values() and name not in unread and len(self.travel) < _MOST_NAMES:
                self.travel.setdefault(name, self._why(name, taken))

    def note(self, text: str | None) -> None:
        """Note something of the file that the user should read before a run; None is nothing."""
        if text is not None:
            self.notes.append(f"{_near(self.file)}: {text}")

    def lacks(self, where: str) -> str | None:
        """What to say of a column that job.columns names and that is not there; None if there is none."""
        if not self.missing:
            return None
        name, column = min(self.missing)
        problem = f"job.columns.{name}={column}: there is no such column {where}"
        return f"{path_name(self.file)}: {problem}; correct the name, or set job.columns.{name}=null"

    def _why(self, name: str, taken: Mapping[str, str]) -> str:
        """Why a column is no field although its name looks like one; "" for all others."""
        known = known_name(name)
        if known in ONLY_BY_NAME:
            return f"job.columns.{ONLY_BY_NAME[known]}={name} would use it"
        for one, names in NAMES.items():
            if known in names:
                if one in taken:
                    return f"{one} is in {told(taken[one])}"
                return f"job.columns.{one}={getattr(self.reading.columns, one) or 'null'}"
        return ""

    @property
    def kind(self) -> tuple[Any, ...]:
        """What files that are shown as one have in common."""
        return (self.separator, repr(self.fields), repr(self.travel), repr(self.unread))


@dataclass
class Found:
    """What a command found in its prompt files. `notes` are lines that the user should read before a run, too."""

    files: list[FileColumns] = field(default_factory=list)
    example: Prompt | None = None
    notes: list[str] = field(default_factory=list)

    def watch(self, prompts: Iterable[Prompt | Reject]) -> Iterator[Prompt | Reject]:
        """Yield the prompts as they are, and keep the first as the example."""
        for one in prompts:
            if self.example is None and isinstance(one, Prompt):
                self.example = one
            yield one
        self.notes += filter(None, (one.lacks("in any row up to job.limit") for one in self.files))
        named = named_columns(self.files[0].reading) if self.files else []
        if named and not any(one.fields for one in self.files):
            self.notes.append(f"job.columns.{named[0][0]}={named[0][1]} is not used: the prompt files have no columns")

    def plain(self) -> dict[str, Any]:
        """All of it as what JSON knows: `files`, `example` (None if there is no prompt) and `notes`."""
        files = [
            {"file": one.file, "more_like_it": count - 1, "separator": one.separator, "fields": one.fields,
             "travel": one.travel, "unread": one.unread}
            for one, count in self._kinds()
        ]  # fmt: skip
        example = None if self.example is None else asdict(self.example)
        return {"files": files, "example": example, "notes": self.notes}

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) of the lines that a person reads. A line without a label goes on from the one before it."""
        kinds = self._kinds()
        lines = [line for one, count in kinds[:_SHOWN_KINDS] for line in _lines_of(one, count)]
        if len(kinds) > _SHOWN_KINDS:
            lines.append(("", f"and {len(kinds) - _SHOWN_KINDS} more kinds of files"))
        if self.example is not None:
            lines += _example(self.example)
        return lines + [("note", note) for note in self.notes]

    def _kinds(self) -> list[tuple[FileColumns, int]]:
        """The files, those with the same columns as one, with their number."""
        kinds: dict[tuple[Any, ...], list[FileColumns]] = {}
        for one in self.files:
            kinds.setdefault(one.kind, []).append(one)
        return [(ones[0], len(ones)) for ones in kinds.values()]


def _lines_of(one: FileColumns, count: int) -> Iterator[tuple[str, str]]:
    name = _near(one.file) + (f" and {count - 1} like it" if count > 1 else "")
    split = "" if one.separator is None else f" (separated by {told(one.separator)})"
    fields = ", ".join(f"{field} is {' or '.join(map(told, columns[:3]))}" for field, columns in one.fields.items())
    yield "columns", f"{name}{split}: {fields or 'each line or text is a prompt'}"
    if one.travel:
        yield "", f"only travel into the samples' JSON: {_named(one.travel)}"
    if one.unread:
        yield "", f"are not read: {_named(one.unread)}"


def _near(file: str) -> str:
    """The file as one would name it from here."""
    path, here = Path(file), Path.cwd()
    return path_name(path.relative_to(here) if path.is_relative_to(here) else file)


def _named(columns: Mapping[str, str]) -> str:
    names = [told(name) + (f" ({why})" if why else "") for name, why in list(columns.items())[:_SHOWN_NAMES]]
    return ", ".join(names) + (f" and {len(columns) - _SHOWN_NAMES} more" if len(columns) > _SHOWN_NAMES else "")


def _example(prompt: Prompt) -> Iterator[tuple[str, str]]:
    yield "example", f"{prompt.key}: {_short(prompt.prompt)}"
    negative = f"negative prompt {_short(prompt.negative_prompt)}" if prompt.negative_prompt else "no negative prompt"
    size = f"{prompt.width}x{prompt.height}"
    yield "", f"seed {prompt.seed}, {size}, {prompt.steps} steps, guidance {prompt.guidance:g}, {negative}"
    if prompt.prompt.startswith("#"):
        yield "", "'job.comment=\"#\"' would skip the lines that begin with #"


def _short(text: str) -> str:
    """Text on one line, as it is where that cannot harm a terminal."""
    text = " ".join(text.split())
    text = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
    return repr(text) if text.isprintable() else ascii(text)
