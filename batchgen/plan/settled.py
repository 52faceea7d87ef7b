"""Which rows of the prompt files are planned already, so that an extension takes only those that come after them.

In each file, rows are planned in order. So the last line that the plan knows, as a prompt or as a row that was left
out, says where to go on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from batchgen.errors import BrokenRunError
from batchgen.plan.inputs import numbers_of
from batchgen.plan.planner import Planner
from batchgen.plan.store import Plan
from batchgen.types import Prompt, Reject, Row


@dataclass(slots=True)
class End:
    """How far a file is planned: the last line that is planned or was left out, and how many of its rows are.

    A line has several rows if it holds a list of captions; a limit may have cut it.
    """

    line: int = 0
    rows: int = 0

    def add(self, line: int) -> None:
        """Count a row in, which was planned or left out."""
        if line > self.line:
            self.line, self.rows = line, 0
        self.rows += line == self.line


def recall(plan: Plan, planner: Planner) -> tuple[int, dict[int, End]]:
    """Let the planner count what is planned; return how many rows that are, and how far each file is planned.

    The files are named by their numbers. Raises BrokenRunError where the plan cannot be read.
    """
    ends: dict[int, End] = {}
    rows = planner.recall(_noted(plan, ends))
    for number, reject in numbered_rejects(plan):
        ends.setdefault(number, End()).add(reject.line)
    return rows, ends


def _noted(plan: Plan, ends: dict[int, End]) -> Iterator[Prompt]:
    for number, prompt in numbered_prompts(plan):
        if prompt.copy == 0:  # the copies of a row are one row
            ends.setdefault(number, End()).add(prompt.line)
        yield prompt


def numbered_prompts(plan: Plan) -> Iterator[tuple[int, Prompt]]:
    """Every planned prompt, with the number of its file."""
    for segment, numbers in zip(plan.of_rows, _numbers(plan), strict=True):
        for prompt in plan.prompts_of(segment):
            yield numbers[prompt.source], prompt


def numbered_rejects(plan: Plan) -> Iterator[tuple[int, Reject]]:
    """Every row that was left out, with the number of its file. Raises BrokenRunError where the list is damaged."""
    for segment, numbers in zip(plan.of_rows, _numbers(plan), strict=True):
        try:
            with segment.files.rejects.open("rb") as file:
                for line in file:
                    fields = json.loads(line)
                    yield numbers[fields["file"]], Reject(fields["file"], int(fields["line"]), str(fields["reason"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BrokenRunError(f"{segment.files.rejects} of the plan cannot be read: {error}") from error


def _numbers(plan: Plan) -> list[dict[str, int]]:
    """The numbers of the files by their names, which may differ between the plan and its extensions."""
    inputs = [segment.inputs for segment in plan.of_rows]
    return [
        {entry["file"]: number for entry, number in zip(entries, numbers, strict=True)}
        for entries, numbers in zip(inputs, numbers_of(inputs), strict=True)
    ]


def rows_after(rows: Iterable[Row | Reject], ends: Mapping[str, End]) -> Iterator[Row | Reject]:
    """The rows that come after the planned ones. `ends`: how far each file is planned, by its present name."""
    source, seen, end = None, 0, End()
    for row in rows:
        if row.source != source:
            source, seen, end = row.source, 0, ends.get(row.source, End())
        seen += row.line == end.line
        if row.line > end.line or (row.line == end.line and seen > end.rows):
            yield row
