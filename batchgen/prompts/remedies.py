"""What helps where a row cannot be used."""

import re
from pathlib import Path

from batchgen.prompts.advice import PANDAS
from batchgen.prompts.mapping import NAMES, known_name
from batchgen.prompts.sniff import unpacked

_JSON = (".json", ".jsonl", ".ndjson")
_NESTED = re.compile(r", but (\w+(?:\[\])?) has '([^']*)'")
_COLUMNS = re.compile(r"(\d+) columns instead of (\d+)")


def remedy(file: str, reason: str) -> str:
    """What to do where a row is left out for this reason. May read the prompt file again."""
    stop = "set job.on_bad_row=fail to stop at the first"
    return cure(file, reason) or (f"or {stop}" if "=null " in reason else stop)


def cure(file: str, reason: str) -> str | None:
    """What to do so that a row is not left out for this reason; None where nothing helps, or the reason says it."""
    if reason.startswith("not valid utf-8") and _reads_as_cp1252(Path(file)):
        return "set job.encoding=cp1252"
    if reason.startswith("not valid ") and "JSON" not in reason:
        return "set job.encoding to the file's encoding"
    if reason.startswith("no prompt: "):
        return _cure_of_no_prompt(Path(file), reason)
    if "not valid JSON: " in reason and Path(file.removesuffix(".gz")).suffix in _JSON:
        return _cure_of_json(reason)
    if reason.startswith("must be an object or a string, got ["):
        return f"write objects with a prompt (pandas: {PANDAS}, into a .jsonl)"
    if (columns := _COLUMNS.match(reason)) and int(columns[1]) > int(columns[2]):
        return "put quotes around a text that holds the separator, or name a file of bare prompts .txt"
    return None


def _cure_of_no_prompt(path: Path, reason: str) -> str:
    name = "set job.columns.prompt=NAME to name the column"
    nested = _NESTED.search(reason)
    if nested is None or Path(path.name.removesuffix(".gz")).suffix not in _JSON:
        return name
    program = (".[]" if _is_array(path) else "") + f".{nested[1]}"
    advice = f"jq -c '{program}' FILE > NEW.jsonl writes what is in {nested[1]} as rows"
    known = known_name(nested[2]) in NAMES["prompt"]
    return advice if known else f"{advice}, of which job.columns.prompt=NAME names the column"


def _cure_of_json(reason: str) -> str | None:
    if "property name" in reason or "trailing comma" in reason:
        return "write each row by json.dumps(row) in Python: names in double quotes, and no comma before a } or ]"
    if "Extra data" in reason:
        return "write one object on each line, with nothing after it (no comma)"
    return None


def _is_array(path: Path) -> bool:
    """Whether the file is a JSON array."""
    try:
        with unpacked(path) as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except (OSError, EOFError):
        return False


def _reads_as_cp1252(path: Path) -> bool:
    """Whether every line that is not ASCII is not UTF-8 either but could be cp1252, so that cp1252 spoils no line."""
    try:
        with unpacked(path) as file:
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
