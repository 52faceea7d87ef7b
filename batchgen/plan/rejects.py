"""Rows that could not be used: how many there are, why the first one was left out, and which key helps."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from batchgen.plan.store import Plan
from batchgen.prompts.records import path_name
from batchgen.types import Reject

_STOP = "set job.on_bad_row=fail to stop at the first"


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


def none_usable(files: Sequence[Path], count: int, first: Reject | None) -> str:
    """What to say where no row of the files can be used. `count`: how many were left out."""
    if first is None:
        named = path_name(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        return f"the prompt files hold no rows: {named}. Write a prompt into them, or name other files in job.prompts"
    help_ = remedy(first.source, first.reason)
    advice = "correct the rows, or name other files in job.prompts" if help_ == _STOP else help_
    return f"none of the {count} rows can be used; the first: {first.source}:{first.line}: {first.reason}; {advice}"


def remedy(file: str, reason: str) -> str:
    """The key to set so that a row is not left out for this reason. May read the prompt file again."""
    if reason.startswith("not valid utf-8") and _reads_as_cp1252(Path(file)):
        return "set job.encoding=cp1252"
    if reason.startswith("not valid ") and "JSON" not in reason:
        return "set job.encoding to the file's encoding"
    if reason.startswith("no prompt: "):
        return "set job.columns.prompt=NAME to name the column"
    return _STOP


def _reads_as_cp1252(path: Path) -> bool:
    """Whether every line that is not ASCII is not UTF-8 either but could be cp1252, so that cp1252 spoils no line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if not line.isascii():
                    line.decode("cp1252")
                    if _is_utf8(line):
                        return False
    except (OSError, EOFError, ValueError):
        return False
    return True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
