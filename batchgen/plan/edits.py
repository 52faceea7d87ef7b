"""What became of a prompt file that is not as it was planned: the first line that differs, and what to do."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from batchgen.config.bounds import PLANNED_KEY_PATTERN
from batchgen.config.loras import parse_loras
from batchgen.config.schema import Config
from batchgen.errors import PromptError
from batchgen.files import to_json
from batchgen.plan.inputs import GROWING, Matched, ReadRows, growth
from batchgen.plan.planner import Planner
from batchgen.plan.settled import numbered_prompts, numbered_rejects
from batchgen.plan.store import Plan
from batchgen.prompts.formats import format_of
from batchgen.prompts.records import path_name, shown
from batchgen.stores.filesystem import is_address
from batchgen.types import Lora, Prompt, PromptFile, Reject, Row

_SUM = 1 << 128


class _Line:
    """What a line of a prompt file asks for, as sums that do not depend on the order of its prompts."""

    def __init__(self) -> None:
        self.plain = 0  # without seeds
        self.seeded = 0

    def add(self, prompt: Prompt) -> None:
        """Count a prompt in."""
        own = None if PLANNED_KEY_PATTERN.fullmatch(prompt.key) else prompt.key
        wanted = [
            prompt.prompt, prompt.negative_prompt, prompt.width, prompt.height, prompt.steps, prompt.guidance,
            prompt.copy, prompt.extra, own, *([Path(one.path).name, one.weight] for one in prompt.lora),
        ]  # fmt: skip
        self.plain = (self.plain + _digest(to_json(wanted))) % _SUM
        self.seeded = (self.seeded + _digest(to_json([*wanted, prompt.seed]))) % _SUM


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def edit(plan: Plan, number: int, file: PromptFile, read: ReadRows) -> str:
    """How the file differs from what was planned of it, in a few words.

    It reads the file and the plan, and holds a digest for each line.
    """
    planned: dict[int, _Line] = {}
    for owner, prompt in numbered_prompts(plan):
        if owner == number:
            planned.setdefault(prompt.line, _Line()).add(prompt)
    left_out = {reject.line: reject.reason for owner, reject in numbered_rejects(plan) if owner == number}
    last = max([*planned, *left_out], default=0)
    word = "item" if format_of(file.name) in (".json", ".parquet") else "line"
    try:
        for line, said in _lines(plan.planned, file, read, planned):
            gone = min((one for one in planned if one < line), default=None)
            if gone is not None:
                return f"{word} {gone} was {_text(plan, number, gone)} and is gone"
            if line > last:
                return _added(plan, file, f"{word} {last}")
            if said is None:
                planned.pop(line)
            elif not left_out.get(line, "").startswith("duplicate key"):  # a row of another file has the key
                was = _text(plan, number, line) if line in planned else "left out"
                if said == f"is {was}":
                    return f"{word} {line}, {was}, has other settings or columns now"
                return f"{word} {line} was {was} and {said} now"
    except PromptError as error:
        return f"it cannot be read now: {error}"
    if planned:
        return f"{word} {min(planned)} was {_text(plan, number, min(planned))} and is gone"
    return "no prompt differs, but its bytes do (the line ends or the encoding, say)"


def _lines(
    config: Config, file: PromptFile, read: ReadRows, planned: dict[int, _Line]
) -> Iterator[tuple[int, str | None]]:
    """Each line that is planned or has rows now, and what it says now; None where that is as it was planned.

    A line that was left out at planning and cannot be used now is passed over.
    """
    planner = Planner(config.job, loras=lambda said: _named(config.model.lora if said is None else said))
    for line, rows in groupby(read([(0, file)]), lambda row: row.line):
        now, said, seeded = _Line(), "", False
        for row in rows:
            if isinstance(row, Row):
                seeded = seeded or row.seed is not None
                said = said or f"is {shown(row.prompt)}"
            for prompt in planner.prompts([row], None):
                if isinstance(prompt, Reject):
                    said = f"cannot be used ({prompt.reason})"
                else:
                    now.add(prompt)
        was = planned.get(line)
        if was is not None and (was.seeded == now.seeded if seeded else was.plain == now.plain):
            yield line, None
        elif was is not None or now.plain:
            yield line, said


def _named(said: Any) -> tuple[Lora, ...]:
    # Without the files: they may be gone, and the plan knows what they were
    return tuple(Lora(path, weight, "") for path, weight in parse_loras(said))


def _text(plan: Plan, number: int, line: int) -> str:
    prompts = (prompt for owner, prompt in numbered_prompts(plan) if owner == number and prompt.line == line)
    return shown(next(prompts).prompt)


def _added(plan: Plan, file: PromptFile, last: str) -> str:
    """What to say where the planned rows are there and others follow, but the first bytes are not the planned ones."""
    if plan.limit is not None:
        return f"its planned prompts are the same, but what follows {last} is not"
    kind = format_of(file.name)
    if kind not in GROWING:
        own = "put them into a file of their own, with extend=true"
        return f"rows were added, but a {kind} file cannot grow in a run: {own}"
    if file.name.lower().endswith(".gz"):
        return "rows were added, but it was packed anew: add them by `gzip -c MORE >> FILE`, or as a file of their own"
    return "rows were added, but its earlier bytes changed too: add them to the old file, or as a file of their own"


@dataclass(frozen=True, slots=True)
class FileChanges:
    """What became of the prompt files of a plan, in lines of `file: what`.

    `edited`: files of which planned rows changed. `gone`: files that are not named any more. `more`: files that are new
    or that rows were appended to. `places`: where those files are among the command's.
    """

    edited: list[str]
    gone: list[str]
    more: list[str]
    places: list[int]


def file_changes(plan: Plan, matched: Matched, files: Sequence[PromptFile], read: ReadRows) -> FileChanges:
    """Look at each prompt file that is not as it was planned. Raises PromptError, OSError.

    A file that got longer without getting rows, by a line end say, has not changed.
    """
    names = {file.name: place for place, file in enumerate(files)}
    edited, gone, more, places = [], [], [], []
    planned = plan.inputs
    missing = {planned[number]["file"]: number for number in matched.lost}
    for name, lost in missing.items():
        if name in names and matched.numbers[names[name]] is None:
            edited.append(f"{path_name(name)}: edited: {edit(plan, lost, files[names[name]], read)}")
        else:
            is_there = is_address(name) or Path(name).exists()
            gone.append(f"{path_name(name)}: {'not named in job.prompts' if is_there else 'gone'}")
    for place, file in enumerate(files):
        number = matched.numbers[place]
        if number is None:
            if file.name not in missing:
                more.append(f"{path_name(file.name)}: new")
                places.append(place)
        elif place in matched.grown:
            found = growth(file, planned[number]["bytes"], read)
            if found.continued is not None:
                what = f"line {found.continued}, which was planned, reads otherwise with what was added after it"
                edited.append(f"{path_name(file.name)}: edited: {what}")
            elif found.rows:
                more.append(f"{path_name(file.name)}: rows were appended")
                places.append(place)
    return FileChanges(edited, gone, more, places)


def refusal(settings: Sequence[str], files: FileChanges, extend: bool) -> str | None:
    """What a command would change in a run, and what to do instead; None where it only adds what it may add."""
    more = [] if extend else files.more
    told = [*settings, *files.edited, *files.gone, *more]
    if not told:
        return None
    advice = [
        _set_back(settings) if settings else "",
        "put the edited file back as it was" * bool(files.edited),
        "put the missing file back or name it in job.prompts" * bool(files.gone),
        "extend=true adds the new rows to it" * bool(more),
    ]
    what = "settings" if settings else "prompts"
    return (
        f"was planned with different {what}: {'; '.join(told)}.\nNothing was changed: {', '.join(filter(None, advice))}"
    )


def _set_back(settings: Sequence[str]) -> str:
    """What to add to the command so that it has the settings of the plan; in words where a value is too long."""
    pairs = [(key, values.partition(" -> ")) for key, colon, values in (one.partition(": ") for one in settings)]
    if any(not arrow or "..." in was for _, (was, arrow, _) in pairs):
        return "set it back"
    return "set " + " ".join(shlex.quote(f"{key}={_plain(was)}") for key, (was, _, _) in pairs)


def _plain(value: str) -> str:
    """A JSON value as the command line takes it: words need no quotes."""
    text = json.loads(value)
    is_word = (
        isinstance(text, str) and re.fullmatch(r"[A-Za-z][\w.+/-]*", text) and text not in ("null", "true", "false")
    )
    return str(text) if is_word else value
