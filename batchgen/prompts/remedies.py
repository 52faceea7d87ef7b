"""What helps where a row cannot be used."""

import gzip
import re
from pathlib import Path

from batchgen.prompts.sniff import is_gzipped

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
        return "set job.columns.prompt=NAME to name the column"
    if (columns := _COLUMNS.match(reason)) and int(columns[1]) > int(columns[2]):
        return "put quotes around a text that holds the separator, or name a file of bare prompts .txt"
    return None


def _reads_as_cp1252(path: Path) -> bool:
    """Whether every line that is not ASCII is not UTF-8 either but could be cp1252, so that cp1252 spoils no line."""
    try:
        with gzip.open(path) if is_gzipped(path) else path.open("rb") as file:
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
