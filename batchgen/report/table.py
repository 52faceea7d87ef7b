"""samples.parquet: one row for each planned image, with where its bytes are and the row's own columns.

A column of the rows has one type for the whole table. It is settled by all values before anything is written: whole
numbers, numbers, true and false, or text; values of several types, lists and objects are written as JSON.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from batchgen.errors import BrokenRunError
from batchgen.files import replace_by
from batchgen.plan.store import Plan
from batchgen.report.listing import Listed, listed

# The columns that every table has, with their Arrow types.
COLUMNS = {
    "key": "string",
    "prompt": "string",
    "negative_prompt": "string",
    "seed": "int64",
    "width": "int32",
    "height": "int32",
    "steps": "int32",
    "guidance": "float64",
    "shard": "string",
    "offset": "int64",
    "size": "int64",
    "status": "string",
    "reason": "string",
    "sha256": "string",
}
# Rows with more columns of their own than this have them together, as the samples' JSON has them.
MOST_OWN = 200
TOGETHER = "row_json"
_ROWS_AT_ONCE = 1 << 15
_ARROW = {
    "integer": "int64",
    "long": "int64",
    "number": "float64",
    "boolean": "bool",
    "text": "string",
    "json": "string",
}
_FLOATS_EXACT, _LONGEST = 1 << 53, 1 << 63  # whole numbers that a float holds exactly, and that the table can hold


@dataclass(slots=True)
class Own:
    """The rows' own columns. `kinds`: what each holds, by its name in the prompt files, in order of appearance."""

    kinds: dict[str, str] = field(default_factory=dict)

    def add(self, extra: Mapping[str, Any]) -> None:
        """Take the columns of a row into account."""
        for name, value in extra.items():
            self.kinds[name] = _both(self.kinds.get(name, ""), _kind(value))

    @property
    def are_together(self) -> bool:
        """Whether they are too many for columns of their own."""
        return len(self.kinds) > MOST_OWN

    def names(self) -> dict[str, str]:
        """The name of each in the table, where none is there twice, not even in another case."""
        if self.are_together:
            return {}
        taken, names = set(COLUMNS), dict[str, str]()
        for name in self.kinds:
            free = name
            while free.casefold() in taken:
                free = f"row_{free}"
            taken.add(free.casefold())
            names[name] = free
        return names

    def types(self) -> dict[str, str]:
        """The Arrow type of each, by its name in the table."""
        if self.are_together:
            return {TOGETHER: "string"}
        return {free: _ARROW[self.kinds[name] or "text"] for name, free in self.names().items()}

    def value(self, name: str, extra: Mapping[str, Any]) -> Any:
        """What the table holds of a row for a column; None where the row has nothing."""
        value = extra.get(name)
        if self.kinds[name] == "json" and value is not None:
            return _json(value)
        if self.kinds[name] == "number" and value is not None:
            return float(value) if math.isfinite(value) else None
        return value


def _kind(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if -_FLOATS_EXACT <= value <= _FLOATS_EXACT:
            return "integer"
        return "long" if -_LONGEST <= value < _LONGEST else "json"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else "json"


def _both(one: str, other: str) -> str:
    """The kind of a column that holds both. "" stands for a column without any value yet."""
    if one == other or not one or not other:
        return one or other
    wider = {frozenset(("integer", "number")): "number", frozenset(("integer", "long")): "long"}
    return wider.get(frozenset((one, other)), "json")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def own_columns(plan: Plan) -> Own:
    """The columns of the plan's rows, as far as the plan can be read."""
    own = Own()
    for shard in range(plan.shard_count):
        try:
            batches = plan.shard(shard)[0].batches
        except BrokenRunError:  # the report says so
            continue
        for batch in batches:
            for prompt in batch.prompts:
                if prompt.extra:
                    own.add(prompt.extra)
    return own


def write_table(plan: Plan) -> None:
    """Write the table in place of an older one. What cannot be read of the run counts as open. Raises OSError."""
    own = own_columns(plan)
    replace_by(plan.run.samples_table, lambda file: _write(file, plan, own))


def _write(file: BinaryIO, plan: Plan, own: Own) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types = {name: pa.type_for_alias(alias) for name, alias in (COLUMNS | own.types()).items()}
    schema = pa.schema(list(types.items()))
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(listed(plan)):
            writer.write_table(_arrow(_columns(group, own, plan), schema))


def _arrow(columns: dict[str, list[Any]], schema: Any) -> Any:
    # By Arrow's reader of JSON: `pyarrow.array` imports pandas where that is installed, which takes half a second.
    from pyarrow.json import ParseOptions, ReadOptions, read_json

    names = list(columns)
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True))
    data = "\n".join(json.dumps(row, allow_nan=False) for row in rows).encode()
    options = ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return read_json(io.BytesIO(data), ReadOptions(block_size=len(data) + 1), options)


def _groups(images: Iterator[Listed]) -> Iterator[list[Listed]]:
    group: list[Listed] = []
    for image in images:
        group.append(image)
        if len(group) == _ROWS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _columns(group: list[Listed], own: Own, plan: Plan) -> dict[str, list[Any]]:
    """The values of each column for some rows."""
    prompts = [image.prompt for image in group]
    files = {shard: plan.run.tar(shard).relative_to(plan.run.root).as_posix() for shard in {one.shard for one in group}}
    columns: dict[str, list[Any]] = {
        name: [getattr(prompt, name) for prompt in prompts]
        for name in ("key", "prompt", "negative_prompt", "seed", "width", "height", "steps", "guidance")
    }
    columns |= {name: [getattr(image, name) for image in group] for name in ("offset", "size", "status", "sha256")}
    columns["shard"] = [None if image.status == "open" else files[image.shard] for image in group]
    columns["reason"] = [image.reason and image.reason.encode(errors="replace").decode() for image in group]
    if own.are_together:
        columns[TOGETHER] = [_json(prompt.extra) for prompt in prompts]
    for name, free in own.names().items():
        columns[free] = [own.value(name, prompt.extra) for prompt in prompts]
    return columns
