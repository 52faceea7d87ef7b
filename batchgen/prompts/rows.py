"""The rows of a prompt file, made from its records: which columns hold the fields, and what each field may hold."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from batchgen.config.bounds import BOUNDS, SEED_LIMIT
from batchgen.errors import PromptError
from batchgen.prompts.advice import header_advice
from batchgen.prompts.found import FileColumns
from batchgen.prompts.mapping import NESTED, PROMPT_NAMES, Layout, layout_of
from batchgen.prompts.records import BadRow, doubled, path_name, shown, told
from batchgen.prompts.settings import Reading
from batchgen.prompts.values import (
    check_copies,
    checked_number,
    is_seed_of_64_bits,
    key_text,
    lora_text,
    number_in,
    number_of_cell,
    plain_text,
    prompt_text,
)
from batchgen.types import Reject, Row

_MOST_LAYOUTS = 1_000
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,30}")


class RowReader:
    """Makes Rows from the records of one file. What it finds goes into `columns`."""

    def __init__(self, file: int, source: str, reading: Reading, cells_are_text: bool, columns: FileColumns) -> None:
        self._file = file
        self._source = source
        self._reading = reading
        self._cells_are_text = cells_are_text
        self._columns = columns
        self._header: Layout | None = None
        self._layouts: dict[tuple[str, ...], Layout] = {}  # of objects, by the names of their members
        self._lenient = reading.lenient

    def recognises(self, names: Sequence[str]) -> bool:
        """Whether the prompt is in one of these columns."""
        return self._layout_of(names).prompt is not None

    def take_header(self, names: Sequence[str], unread: Mapping[str, str]) -> list[str]:
        """Settle which columns hold the fields, and return them. Raises PromptError if that cannot be known.

        `unread` are columns that cannot be read, and why.
        """
        twice = doubled(names)
        if twice is not None:
            raise PromptError(f"{path_name(self._source)}: two columns are named {shown(twice)}; rename one")
        layout = self._layout_of(names)
        if layout.prompt is None:
            wanted = self._reading.columns.prompt
            missing = "for the prompt" if wanted is None else shown(wanted)
            advice = header_advice(names, self._separator() if self._cells_are_text else None, "" not in unread)
            raise PromptError(f"{path_name(self._source)}: no column {missing}, only {_listed(names)}; {advice}")
        self._header = layout
        self._columns.take(layout, names, unread)
        if (lacking := self._columns.lacks(f"among {_listed(names)}")) is not None:
            raise PromptError(lacking)
        return [layout.prompt, *(column for _, column in layout.fields)]

    def note_separator(self, separator: str) -> None:
        """Note how the cells of a table are separated, where that is not what its suffix says."""
        self._columns.separator = separator

    def note_beside(self, names: Sequence[str]) -> None:
        """Note the members of an object beside its rows that would be fields in the rows."""
        fields = [column for _, column in layout_of(tuple(names), self._reading).fields]
        if fields:
            self._columns.note(f"{_listed(fields)} beside the prompts is not read: put it into each item")

    def _separator(self) -> str:
        usual = "\t" if ".tsv" in PurePath(self._source).suffixes[-2:] else ","
        return self._columns.separator or usual

    def check_end(self) -> None:
        """Raise PromptError if no object of the file had a column that job.columns names."""
        if (problem := self._columns.lacks("in any row")) is not None:
            raise PromptError(problem)
        self._columns.missing.clear()

    def rows(self, place: int, line: int, value: dict[str, Any] | str | BadRow | None) -> list[Row | Reject]:
        """Return what a record holds: a Row, a Row for each caption of a list, a Reject, or nothing for None."""
        try:
            if value is None:
                return []
            if isinstance(value, BadRow):
                raise value
            if isinstance(value, str):
                return [Row(self._file, place, self._source, line, prompt_text(value))]
            layout = self._header or self._layout_of_object(value)
            prompt = self._take_prompt(value, layout)
            if isinstance(prompt, list) and self._lenient:
                return self._captions(place, line, prompt, value, self._take_fields(value, layout))
            text = prompt_text(prompt)
            found = self._take_fields(value, layout)
            return [Row(self._file, place, self._source, line, text, extra=value, **found)]
        except BadRow as bad:
            return [Reject(self._source, line, str(bad))]

    def _layout_of(self, names: Sequence[str]) -> Layout:
        return layout_of(names, self._reading, nested=not self._cells_are_text)

    def _layout_of_object(self, value: dict[str, Any]) -> Layout:
        names = tuple(value)
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._layout_of(names)
            self._columns.take(layout, names, {})
            if len(self._layouts) < _MOST_LAYOUTS:
                self._layouts[names] = layout
        return layout

    def _take_prompt(self, value: dict[str, Any], layout: Layout) -> Any:
        """Take the prompt out of the record: text, or a list of captions. Raises BadRow where there is none."""
        if layout.prompt is None and self._reading.columns.prompt is not None:
            raise BadRow("no prompt")
        prompt = None if layout.prompt is None else value.pop(layout.prompt)
        deep = isinstance(prompt, list | dict)
        if layout.prompt is None or (layout.prompt == NESTED != self._reading.columns.prompt and not deep):
            raise BadRow(f"no prompt: none of {', '.join(PROMPT_NAMES)} is there" + self._instead(value))
        return self._texts(prompt) if deep and self._lenient else prompt

    def _instead(self, value: dict[str, Any]) -> str:
        """What the record has instead of a prompt: the names of its members, and of those in the one that is nested."""
        if not self._lenient or not value:
            return ""
        nested: dict[str, dict[str, Any]] = {}
        for name, member in value.items():
            inner = member[0] if isinstance(member, list) and member else member
            if isinstance(inner, dict) and inner and _PLAIN_NAME.fullmatch(name):
                nested[name + "[]" * isinstance(member, list)] = inner
        best = next((name for name, inner in nested.items() if self._layout_of(tuple(inner)).prompt), None)
        path = best or next((name for name in nested if name.endswith("[]")), None)
        if path is not None:
            return f", but {path} has {_short(tuple(nested[path]), first=self._layout_of(tuple(nested[path])).prompt)}"
        return f", only {_short(tuple(value))}"

    def _texts(self, nested: Any) -> Any:
        """The captions in what holds them: a list of texts or of objects, or an object."""
        if isinstance(nested, list):
            return [self._texts(one) if isinstance(one, dict) else one for one in nested]
        column = layout_of(tuple(nested), self._reading).prompt
        if column is None:
            raise BadRow(f"no prompt: none of {', '.join(PROMPT_NAMES)} is in {shown(nested)}")
        return nested[column]

    def _take_fields(self, value: dict[str, Any], layout: Layout) -> dict[str, Any]:
        """Take the other fields out of the record, but for a seed that is not kept whole. Raises BadRow."""
        found: dict[str, Any] = {}
        for name, column in layout.fields:
            cell = value.pop(column, None)
            if name in BOUNDS and cell is not None:
                if self._lenient:
                    cell = number_in(name, cell)
                elif self._cells_are_text:
                    cell = number_of_cell(name, cell)
            if cell is None or cell == "":
                continue
            if self._lenient and name == "seed" and not isinstance(cell, bool):
                if cell == -1:  # other programs' word for any seed
                    continue
                if is_seed_of_64_bits(cell):
                    value[column] = cell  # what the file says stays in the sample's JSON
                    cell %= SEED_LIMIT
            found[name] = self._field(name, cell)
        check_copies(found)
        return found

    def _field(self, name: str, value: Any) -> str | int | float:
        if name == "key":
            return key_text(value, self._lenient)
        if name == "lora":
            return lora_text(value)
        return plain_text(name, value) if name == "negative_prompt" else checked_number(name, value)

    def _captions(
        self, place: int, line: int, captions: list[Any], extra: dict[str, Any], found: dict[str, Any]
    ) -> list[Row | Reject]:
        """A Row for each caption of a record; those that are empty are no bad rows, unless all are."""
        rows: list[Row | Reject] = []
        for number, caption in enumerate(captions):
            if caption is None or (isinstance(caption, str) and not caption.strip()):
                continue
            try:
                text, own = prompt_text(caption), dict(extra)
                count = len(captions)
                rows.append(Row(self._file, place, self._source, line, text, extra=own, caption=number,
                                captions=count, **found))  # fmt: skip
            except BadRow as bad:
                rows.append(Reject(self._source, line, f"caption {number + 1}: {bad}"))
        if not rows:
            raise BadRow("empty prompt: a list without captions")
        return rows


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(told, names[:20])) + (" and more" if len(names) > 20 else "")


def _short(names: Sequence[str], first: str | None = None) -> str:
    """Some of the names, as many as a reason has room for."""
    ordered = sorted(names, key=lambda name: name != first)
    said = ", ".join(shown(name)[:25] for name in ordered[:4])
    return said + (" and more" if len(names) > 4 else "")
