"""Which samples a person asks for by `where=COLUMN=VALUE`: those of rows with these values.

Nothing that is found is a mistake more often than not, so it is told with what is there.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.errors import UserError
from batchgen.report.picks import clean
from batchgen.types import Prompt

# What can be asked for beside the columns of the rows.
FIELDS = ("key", "prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance", "source", "line")
_VALUES, _CHARS = 5, 40  # of a column that are told, and of each


def parsed(texts: Sequence[str]) -> dict[str, str]:
    """The values that are asked for, by column. Raises UserError for what is not COLUMN=VALUE, and a column twice."""
    where: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"where={text}: write where=COLUMN=VALUE")
        if name in where:
            raise UserError(
                f"where={name}= is there twice, and no sample has both values: name each column once, "
                "and run the command again for another value"
            )
        where[name] = value
    return where


@dataclass(slots=True)
class Where:
    """Chooses samples by what is `asked` for, and remembers what it saw, so that it can tell why there are none."""

    asked: Mapping[str, str]
    _columns: set[str] = field(default_factory=set)  # of all rows
    _values: dict[str, dict[str, None]] = field(default_factory=dict)  # some that a column which is asked for has
    _alone: set[str] = field(default_factory=set)  # columns that in some row have the value that is asked for
    _found: bool = False

    def matching(self, prompts: Iterable[Prompt], keys: Collection[str] | None) -> set[str]:
        """The keys of those prompts whose columns are as asked for; of these `keys` alone, unless they are None."""
        found = set()
        for prompt in prompts:
            self._columns.update(prompt.extra)
            if keys is None or prompt.key in keys:
                values = {name: _value(prompt, name) for name in self.asked}
                fits = {name for name, text in self.asked.items() if _is(values[name], text)}
                self._alone |= fits
                if len(fits) == len(self.asked):
                    found.add(prompt.key)
                for name, value in values.items():
                    self._see(name, value)
        self._found = self._found or bool(found)
        return found

    def check(self) -> None:
        """Raise UserError for a column that no row has, and if none of all prompts was as asked for."""
        if self._found or not self.asked:
            return
        for name, text in self.asked.items():
            if name not in self._columns and name not in FIELDS:
                raise UserError(
                    f"where={name}: no row has this column{did_you_mean(name, sorted({*FIELDS, *self._columns}))}"
                )
            if name not in self._alone:
                raise UserError(f"where={name}={text}: none of the images has this value{self._there(name)}")
        every = " ".join(f"where={name}={text}" for name, text in self.asked.items())
        raise UserError(f"{every}: none of the images has all of these; each alone is there")

    def _see(self, name: str, value: Any) -> None:
        values = self._values.setdefault(name, {})
        if value is not None and len(values) <= _VALUES:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values[clean(" ".join(text.split()), _CHARS)] = None

    def _there(self, name: str) -> str:
        values = list(self._values.get(name, ()))
        more = " and others" if len(values) > _VALUES else ""
        return f"; there are {', '.join(values[:_VALUES])}{more}" if values else "; they have none there"


def _value(prompt: Prompt, name: str) -> Any:
    return prompt.extra[name] if name in prompt.extra else getattr(prompt, name) if name in FIELDS else None


def _is(value: Any, text: str) -> bool:
    """Whether a value is the one that a person typed: 7.0 is 7, too."""
    if isinstance(value, str) or value is None:
        return value == text
    if json.dumps(value, ensure_ascii=False) == text:  # also whole numbers that no float holds
        return True
    with suppress(ValueError):
        return not isinstance(value, bool | list | dict) and float(text) == value
    return False
