"""What to do with a file that is not read as it is meant: another suffix, another form, a line more."""

import csv
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from batchgen.config.quoting import text_word
from batchgen.prompts.mapping import NAMES, known_name
from batchgen.prompts.records import told

PANDAS = "to_json(orient='records', lines=True)"
_SEPARATORS = "\t,;|"
_MOST_NAMES = 12  # of the columns of a header that is shown whole
_LONG_CHARS, _LONG_WORDS = 60, 4  # more than the name of a column has
_DATA = re.compile(r"[-+]?\d[\d.,]*|\w+://.*", re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_LIKE = re.compile(r".*\.\w+|\d+", re.DOTALL)

_SHEET = "a spreadsheet cannot be read; save it as CSV UTF-8 in the program that made it, and name that file"
_PACKED = "an archive cannot be read; unpack it, and name the files in it"
_ARROW = (
    "an Arrow file cannot be read; write it as parquet, by "
    "datasets.Dataset.from_file('FILE').to_parquet('NEW.parquet') or, of another program, "
    "pandas.read_feather('FILE').to_parquet('NEW.parquet')"
)
_FEATHER = "a feather file cannot be read; pandas.read_feather('FILE').to_parquet('NEW.parquet') writes it as parquet"
_OTHER = "this kind of file cannot be read; write the prompts as .csv or .jsonl, or each on a line of a .txt"
_UNREAD = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"), _PACKED),
    ".arrow": _ARROW,
    ".feather": _FEATHER,
    **dict.fromkeys((".pkl", ".pickle", ".html", ".htm", ".xml", ".yaml", ".yml", ".md", ".docx", ".pdf"), _OTHER),
}


def unread_kind(suffix: str) -> str | None:
    """What to do with a file of this suffix, which is not read; None where nothing is known of it."""
    return _UNREAD.get(suffix)


def unread_folder(folder: Path) -> str:
    """What to do with a folder that is named as a prompt file. Looks into it."""
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        load = "datasets.load_from_disk('FOLDER')"
        split = "['train']" if (folder / "dataset_dict.json").exists() else ""
        return f"is a folder of datasets: {load}{split}.to_parquet('NEW.parquet') writes a file that can be read"
    return "is not a file; name the files in it, or use a glob like *.csv"


def text_note(line: str) -> str | None:
    """What to say where the first line of a .txt is that of a table or of JSON lines; None where it is text."""
    if line.startswith("{"):
        try:
            if isinstance(json.loads(line), dict):
                return "it looks like JSON lines, but each line is drawn as it is: rename it to .jsonl"
        except (ValueError, RecursionError):
            return None
    for separator in _SEPARATORS:
        try:
            cells = next(csv.reader([line], delimiter=separator), [])
        except csv.Error:  # a line that is too long, or has a carriage return in it
            return None
        if len(cells) > 1 and any(known_name(cell) in NAMES["prompt"] for cell in cells):
            suffix = ".tsv" if separator == "\t" else ".csv"
            return f"it looks like a table, but each line is drawn as it is: rename it to {suffix}"
    return None


def header_advice(names: Sequence[str], separator: str | None, whole: bool) -> str:
    """What to do where none of the columns is known to hold the prompt.

    `separator` is that of a table, None for a file that has no first line. Without `whole` there are columns that
    `names` lacks, because they have no name.
    """
    if separator is None:
        return f"set {_override(names)}"
    line = _header_line(names, separator, whole)
    if any(map(_is_data, names)):
        return f"the first line looks like a row already: put {line} before it"
    return f"set {_override(names)}, or, if the first line is a row already, put {line} before it"


def object_advice(members: Mapping[str, str]) -> str:
    """What to do with a file of one object that is not read: `members` has the beginning of the text of each."""
    known = [name for name in members if known_name(name) in NAMES["prompt"]]
    if any(members[name].startswith('"') for name in known):
        return _jq(".")  # an object over several lines
    if known or ("columns" in members and members.get("data", "").startswith("[")):
        return f"write it as .jsonl (pandas: {PANDAS})"
    lists = [name for name, text in members.items() if re.match(r"\[\s*\{", text)]
    if lists:
        best = next((name for name in lists if _PROMPT_MEMBER.search(members[name])), lists[0])
        return _jq(f"{jq_path(best)}[]")
    if members and all(text.startswith("{") for text in members.values()):
        return _jq(".[]")
    if members and all(map(_FILE_LIKE.fullmatch, members)):  # prompts or lists of them, by the names of images
        deep = all(text.startswith("[") for text in members.values())
        if deep or all(text.startswith('"') for text in members.values()):
            return _jq(".[][]" if deep else ".[]")
    return f"write an array of objects, or one object on each line (pandas: {PANDAS}; jq: -c)"


def jq_path(name: str) -> str:
    """The member of an object, as jq names it."""
    return f".{name}" if _IDENTIFIER.fullmatch(name) else f".[{json.dumps(name)}]"


def _jq(program: str) -> str:
    quoted = f"'{program}'" if "'" not in program else shlex.quote(program)
    return f"jq -c {quoted} FILE > NEW.jsonl writes a row on each line (pandas: {PANDAS})"


_PROMPT_MEMBER = re.compile(rf'"(?:{"|".join(NAMES["prompt"])})"\s*:', re.IGNORECASE)


def _override(names: Sequence[str]) -> str:
    """The word of a shell's line that names the column whose name has most of a prompt's; else with NAME in it."""
    bare = {name: known_name(name.strip("'\"` ")) for name in names if name.isprintable()}
    exact = [name for name, known in bare.items() if known in NAMES["prompt"]]
    near = [name for name, known in bare.items() if any(one in known for one in NAMES["prompt"])]
    for name in [*exact, *near]:
        word = text_word("job.columns.prompt", f'"{name}"')  # without its own quotes it would be another name
        if word is not None:
            return word
    return "job.columns.prompt=NAME"


def _is_data(name: str) -> bool:
    """Whether the name of a column is rather what a row holds."""
    name = name.strip()
    return _DATA.fullmatch(name) is not None or len(name) > _LONG_CHARS or len(name.split()) > _LONG_WORDS


def _header_line(names: Sequence[str], separator: str, whole: bool) -> str:
    """The line that names the columns: the one with the most words holds the prompt."""
    if whole and len(names) == 1:
        return "the line prompt"
    count = f"all {len(names)}" if whole else "all"
    if not whole or len(names) > _MOST_NAMES:
        return f"a line with the names of {count} columns, with prompt among them,"
    place = max(range(len(names)), key=lambda at: len(names[at].split()))
    others = (chr(ord("b") + number) for number in range(len(names)))
    line = ("<TAB>" if separator == "\t" else separator).join(
        "prompt" if at == place else next(others) for at in range(len(names))
    )
    return f"a line with the names of {count} columns, such as {told(line)[1:-1]},"
