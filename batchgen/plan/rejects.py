"""Rows that could not be used: how many there are, and why the first one was left out."""

import json
from collections.abc import Sequence

from batchgen.plan.store import Plan
from batchgen.prompts.records import path_name
from batchgen.prompts.remedies import cure, remedy
from batchgen.types import PromptFile, Reject


def rejected_line(plan: Plan) -> str | None:
    """One line on the rows that were left out of a plan; None where there are none."""
    segments = [segment for segment in plan.segments if segment.rejects]
    if not segments:
        return None
    count = sum(segment.rejects for segment in segments)
    listed = [segment.files.rejects.relative_to(plan.run.root).as_posix() for segment in segments]
    said = f"{count} {'row was' if count == 1 else 'rows were'} left out"
    if (first := first_reject(plan)) is not None:
        said += f", the first {first.source}:{first.line}: {first.reason}; {remedy(first.source, first.reason)}"
    return f"{said} ({' and '.join(listed)} {'lists' if len(listed) == 1 else 'list'} all)"


def first_reject(plan: Plan) -> Reject | None:
    """The first row that was left out; None where there is none or the list cannot be read."""
    for segment in plan.segments:
        if segment.rejects:
            try:
                with segment.files.rejects.open("rb") as file:
                    reject = json.loads(file.readline())
                return Reject(str(reject["file"]), int(reject["line"]), str(reject["reason"]))
            except (OSError, ValueError, KeyError, TypeError):
                return None  # it is only shown to the user; nothing depends on it
    return None


def none_usable(files: Sequence[PromptFile], count: int, first: Reject | None) -> str:
    """What to say where no row of the files can be used. `count`: how many were left out."""
    if first is None:
        named = path_name(files[0].name) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        return f"the prompt files hold no rows: {named}. Write a prompt into them, or name other files in job.prompts"
    helps = cure(first.source, first.reason) or "correct the rows, or name other files in job.prompts"
    what = "the only row cannot be used" if count == 1 else f"none of the {count} rows can be used; the first"
    return f"{what}: {first.source}:{first.line}: {first.reason}; {helps}"
