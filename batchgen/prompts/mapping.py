"""Which column of a file holds which field, by its name. A name is known in any case, with spaces, _ or - in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from batchgen.prompts.settings import Reading
from batchgen.types import Columns

# The names of the fields here and in other programs, in the order in which they are looked for, as `known_name` has it.
# n, w, h and step mean other things in other files, so that only job.columns can name them.
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "text", "caption", "description", "prompts", "captions", "positiveprompt"),
    "key": ("key",),
    "negative_prompt": ("negativeprompt", "negative", "negprompt"),
    "seed": ("seed",),
    "width": ("width",),
    "height": ("height",),
    "steps": ("steps", "numinferencesteps", "inferencesteps", "samplingsteps"),
    "guidance": ("guidance", "guidancescale", "cfgscale", "cfg"),
    "images_per_prompt": ("imagesperprompt", "numimagesperprompt"),
    "lora": ("lora", "loras"),
}
ONLY_BY_NAME = {"n": "images_per_prompt", "w": "width", "h": "height", "step": "steps"}
NESTED = "annotations"  # where COCO keeps its captions
_PROMPT_COLUMNS = ("prompt", "Prompt", "PROMPT")
PROMPT_NAMES = ("prompt", "text", "caption", "description")  # in any mix of cases
_FIELDS = tuple(column.name for column in fields(Columns))
_DEFAULTS = Columns()


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column holds the prompt, None where none does, and (field, column) of the other fields."""

    prompt: str | None
    fields: tuple[tuple[str, str], ...]

    def missing(self, reading: Reading) -> list[tuple[str, str]]:
        """(field, column) of the columns that job.columns names and that are not there."""
        there = dict(self.fields)
        return [(name, column) for name, column in named_columns(reading) if there.get(name) != column]


def named_columns(reading: Reading) -> list[tuple[str, str]]:
    """(field, column) of the columns that job.columns names, but for the prompt's. A field's own name names none."""
    wanted = [(name, getattr(reading.columns, name)) for name in _FIELDS if name != "prompt"]
    return [(name, column) for name, column in wanted if column not in (None, getattr(_DEFAULTS, name))]


def known_name(name: str) -> str:
    """The name as NAMES has it: without case, outer spaces and what stands between its words."""
    return re.sub(r"[\s_\-\ufeff]+", "", name).casefold()


def layout_of(names: Sequence[str], reading: Reading, nested: bool = False) -> Layout:
    """Find the fields among the names of a table's columns or of an object's members.

    With `nested` the prompts may be within what NESTED names, if nothing else holds them.
    """
    wanted = tuple(getattr(reading.columns, name) for name in _FIELDS)
    return _layout(tuple(names), wanted, reading.lenient, nested and reading.lenient)


@lru_cache(maxsize=64)  # most objects of a file have the same members
def _layout(names: tuple[str, ...], wanted: tuple[str | None, ...], lenient: bool, nested: bool) -> Layout:
    by_field = dict(zip(_FIELDS, wanted, strict=True))
    named_prompt = by_field.pop("prompt")
    set_by_job = {column for column in by_field.values() if column is not None}
    found = {name: column for name, column in by_field.items() if column is not None and column in names}
    if lenient:
        for name, column in by_field.items():
            if name not in found and column == getattr(_DEFAULTS, name):
                free = [one for one in names if one not in set_by_job and one != named_prompt]
                if (there := _first(NAMES[name], free)) is not None:
                    found[name] = there
    taken = set_by_job | set(found.values())
    prompt = named_prompt if named_prompt in names else None
    if named_prompt is None:
        free = [one for one in names if one not in taken]
        prompt = _find_prompt(free, lenient) or (NESTED if nested and NESTED in free else None)
    return Layout(prompt, tuple((name, found[name]) for name in by_field if name in found))


def _find_prompt(free: list[str], lenient: bool) -> str | None:
    for column in _PROMPT_COLUMNS:
        if column in free:
            return column
    for wanted in PROMPT_NAMES:
        for name in free:
            if name.lower() == wanted:
                return name
    return _first(NAMES["prompt"], free) if lenient else None


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of the names that are wanted, in the order in which they are wanted."""
    known = {known_name(name): name for name in reversed(names)}
    return next((known[name] for name in wanted if name in known), None)
