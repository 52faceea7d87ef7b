"""The prompt files of a run: which of them are the same, which have grown, which are new or not there.

A file is known by its content: it may move. Lines may be added to its end, which leaves its first bytes as they were.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgen.config.schema import JobConfig
from batchgen.files import sha256_file
from batchgen.prompts import READS, Found, Reading, read_prompts
from batchgen.prompts.formats import format_of
from batchgen.types import PromptFile, Reject, Row

# In these formats, rows can be added behind a file's bytes. They may be gzipped: gzip files can be put together.
GROWING = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
_PIECE_BYTES = 1 << 20

Entry = dict[str, Any]
"""A prompt file in a plan: `file`, its name; `bytes`, `sha256`; in an extension `continues`, the number that it has
already; and, if it was fetched, `copy`, the place of its copy in the run.

A file without `continues` gets the next number. Numbers are those in the keys.
"""


@dataclass(frozen=True, slots=True)
class Input:
    """A prompt file of a command, as it was looked at. `continues`: as in an `Entry`."""

    file: PromptFile
    size_bytes: int
    sha256: str
    continues: int | None = None

    @property
    def entry(self) -> Entry:
        """The file as a plan lists it."""
        facts: Entry = {"file": self.file.name, "bytes": self.size_bytes, "sha256": self.sha256}
        return facts if self.continues is None else facts | {"continues": self.continues}


def inputs_of(files: Sequence[PromptFile]) -> list[Input]:
    """Look at the size and the content of each prompt file, in order."""
    return [Input(file, file.path.stat().st_size, sha256_file(file.path)) for file in files]


def numbers_of(plans: Iterable[list[Entry]]) -> list[list[int]]:
    """The numbers of the files of a plan and of its extensions, in order."""
    count = 0
    numbers: list[list[int]] = []
    for entries in plans:
        numbers.append([])
        for entry in entries:
            number = int(entry.get("continues", count))
            numbers[-1].append(number)
            count = max(count, number + 1)
    return numbers


def newest(plans: Sequence[list[Entry]]) -> list[Entry]:
    """Each prompt file of a plan and its extensions as it was last planned, by its number."""
    found: dict[int, Entry] = {}
    for entries, numbers in zip(plans, numbers_of(plans), strict=True):
        for entry, number in zip(entries, numbers, strict=True):
            found[number] = {name: fact for name, fact in entry.items() if name != "continues"}
    return [found[number] for number in sorted(found)]


@dataclass(frozen=True, slots=True)
class Matched:
    """How the prompt files of a command compare with those of a plan.

    `numbers`: of each file of the command, its number in the plan; None for one that the plan does not have.
    `grown`: the places of files that hold the planned bytes and more. `lost`: the numbers of planned files that are
    none of the command's.
    """

    numbers: tuple[int | None, ...]
    grown: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def new(self) -> list[int]:
        """The places of the files that the plan does not have."""
        return [place for place, number in enumerate(self.numbers) if number is None]


def match_inputs(old: Sequence[Entry], inputs: Sequence[Input]) -> Matched:
    """Find each planned file among the files of a command: under its name, if it is there, else under another."""
    numbers: dict[int, int] = {}
    new = [one.entry for one in inputs]
    paths = {one.file.name: one.file.path for one in inputs}

    def begins(was: Entry, now: Entry) -> bool:
        return now["bytes"] > was["bytes"] and _begins(paths[now["file"]], was) and format_of(now["file"]) in GROWING

    def take(key: Callable[[Entry], Any], fits: Callable[[Entry, Entry], bool]) -> Iterator[int]:
        """Match the files of one key that fit, in order; return the places."""
        taken = set(numbers.values())
        waiting: dict[Any, list[int]] = {}
        for number, entry in enumerate(old):
            if number not in taken:
                waiting.setdefault(key(entry), []).append(number)
        for place, entry in enumerate(new):
            alike = waiting.get(key(entry), []) if place not in numbers else []
            found = next((number for number in alike if fits(old[number], entry)), None)
            if found is not None:
                alike.remove(found)
                numbers[place] = found
                yield place

    def always(was: Entry, now: Entry) -> bool:
        return True

    kept = {entry["file"] for entry in old} & {entry["file"] for entry in new}  # these did not move

    def moved(was: Entry, now: Entry) -> bool:
        return not kept & {was["file"], now["file"]} and was["bytes"] > 0 and begins(was, now)

    list(take(lambda entry: (entry["file"], entry["sha256"]), always))
    grown = list(take(lambda entry: entry["file"], begins))
    list(take(lambda entry: entry["sha256"], always))
    grown += take(lambda entry: None, moved)
    taken = set(numbers.values())
    lost = tuple(number for number in range(len(old)) if number not in taken)
    return Matched(tuple(numbers.get(place) for place in range(len(new))), tuple(sorted(grown)), lost)


def _begins(path: Path, was: Entry) -> bool:
    """Whether a file begins with the planned bytes."""
    digest = hashlib.sha256()
    for piece in _first_bytes(path, was["bytes"]):
        digest.update(piece)
    return bool(digest.hexdigest() == was["sha256"])


def _first_bytes(path: Path, count: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while count and (piece := file.read(min(_PIECE_BYTES, count))):
            count -= len(piece)
            yield piece


ReadRows = Callable[[Iterable[tuple[int, PromptFile]]], Iterator[Row | Reject]]
"""It reads prompt files, each with its number, in order."""


def row_reader(job: JobConfig, reads: int = READS, found: Found | None = None) -> ReadRows:
    """What reads prompt files as the job says, by that version of the reader. What is in them goes into `found`.

    What it returns raises PromptError for a file that cannot be read.
    """

    def read(files: Iterable[tuple[int, PromptFile]]) -> Iterator[Row | Reject]:
        for number, file in files:
            yield from read_prompts([file], Reading.of(job, reads), number, found)

    return read


@dataclass(frozen=True, slots=True)
class Growth:
    """What was put behind the planned bytes of a file.

    `continued`: the line of a planned row that the added bytes changed, such as a last line without an end; else None.
    `rows`: whether there are rows after the planned ones.
    """

    continued: int | None
    rows: bool


def growth(file: PromptFile, planned_bytes: int, read: ReadRows) -> Growth:
    """Compare the rows of a file's first bytes with the rows of the whole file. Raises PromptError, OSError."""
    with _copy_of(file.path, planned_bytes) as path:
        before, now = replace(file, path=path), read([(0, file)])
        for was in read([(0, before)] if planned_bytes else []):
            one = next(now, None)
            if one is None or one != replace(was, source=one.source):
                return Growth(was.line, False)
        return Growth(None, next(now, None) is not None)


@contextmanager
def _copy_of(path: Path, count: int) -> Iterator[Path]:
    """A copy of the first `count` bytes of a file under the same name, so that they are read in the same way."""
    with tempfile.TemporaryDirectory(prefix="batchgen-") as folder:
        copy = Path(folder) / path.name
        with copy.open("wb") as file:
            file.writelines(_first_bytes(path, count))
        yield copy
