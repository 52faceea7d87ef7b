"""What keeps a file from being YAML in UTF-8, in the words of whoever wrote it."""

import codecs
import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from batchgen.config.keys import kinds

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAVE = "save the file as UTF-8"
_PAIR = re.compile(r"\s*(?:- )?(?P<key>[\w.]+):\s+(?P<value>\S.*?)\s*")

_SPECIAL = re.compile(r"^['\"\[\]{}%@`*&!|>?]|:(\s|$)|\s#")  # what a value without quotes must not begin with, or hold


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that holds no text in UTF-8. `place`: ":LINE", or "" where no line can be named."""

    place: str
    problem: str


def read_text(path: Path) -> str | Unreadable:
    """The text of a configuration file, or why it has none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Unreadable("", f"it cannot be read ({error.strerror})")
    if data.startswith(_UTF16) or b"\0" in data:
        return Unreadable("", f"it is UTF-16 or not text at all: {_SAVE}")
    if data.startswith(codecs.BOM_UTF8):
        return Unreadable(":1", f"it begins with a byte order mark, which hides the first line: {_SAVE} without it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Unreadable(f":{line}", f"byte 0x{data[error.start]:02x} is not UTF-8, maybe cp1252: {_SAVE}")


def syntax_problem(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line, counted from 1, that is not YAML, and what to write there."""
    context, problem = error.context or "", error.problem or "unreadable"
    opened = "quoted scalar" in context or "flow" in context or "expected ':'" in problem
    mark = error.context_mark if opened and error.context_mark else error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    place = min(mark.line if mark else 0, len(lines) - 1)
    while place and not lines[place].strip():  # the end of the file
        place -= 1
    line = lines[place]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return place + 1, "it is indented with a tab: indent with spaces"
    if "single document" in context:
        return place + 1, "a second document begins here (---): a file holds one"
    pair = _PAIR.fullmatch(line)
    if pair and (end := _left_open(pair["key"], pair["value"], text)):
        right = f"{pair['key']}: {pair['value'].rstrip(', ')}{end}"
        return place + 1, f"{line.strip()}: the bracket is not closed: put {end} at the end of it, such as {right}"
    if pair and _SPECIAL.search(pair["value"]):
        right = f"{pair['key']}: {json.dumps(_bare(pair['value']), ensure_ascii=False)}"
        return place + 1, f"{line.strip()}: it is not valid YAML: put the text in quotes: {right}"
    hint = "indent all lines of a group alike, and write key: value, with a space after the colon"
    return place + 1, f"{line.strip()}: it is not valid YAML: {hint}"


def _left_open(key: str, value: str, text: str) -> str | None:
    """The bracket that is missing at the end of a value; None where none is, or where the key takes text only."""
    end = {"[": "]", "{": "}"}.get(value[0])
    texts = [kind is str for full, (kind, _) in kinds().items() if full.rpartition(".")[2] == key]
    if end is None or (texts and all(texts)) or end in value or text.count(value[0]) <= text.count(end):
        return None
    return end


def _bare(value: str) -> str:
    """A value without a quotation mark that is left open."""
    return value[1:] if value[0] in "'\"" and value.count(value[0]) == 1 else value
