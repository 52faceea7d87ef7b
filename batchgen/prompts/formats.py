"""The formats of prompt files. Each is read as a stream of records, and a broken record spoils no other."""

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from batchgen.errors import PromptError
from batchgen.prompts.json_items import item_texts, item_value, jsonl_value
from batchgen.prompts.lines import decoded, lines_of, parse_each, txt_value
from batchgen.prompts.parquet import parquet_records
from batchgen.prompts.records import OnHeader, Record, path_name
from batchgen.prompts.tables import table_records

_FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # each may be followed by .gz


def format_of(path: Path) -> str:
    """Return the format of the file, which is its suffix. Raises PromptError if the suffix is not known."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _FORMATS:
        known = " ".join(_FORMATS)
        raise PromptError(f"{path_name(path)}: unknown suffix; use one of {known}, or one of these followed by .gz")
    return suffix


def read_records(path: Path, encoding: str, on_header: OnHeader) -> Iterator[Record]:
    """Yield the records of a file. If it has a header, `on_header` is called once, before the first record.

    Raises DamagedFileError, OSError, EOFError, zlib.error (gzip) or UnicodeError if the file cannot be read.
    """
    kind, zipped = format_of(path), path.name.lower().endswith(".gz")
    with gzip.open(path) if zipped else path.open("rb") as raw:
        if kind != ".parquet":
            yield from _text_records(cast(io.BufferedReader, raw), kind, encoding, on_header)
        elif not zipped:
            yield from parquet_records(cast(IO[bytes], raw), on_header)
        else:
            with tempfile.TemporaryFile() as copy:  # parquet is read from its end, gzip from its start
                shutil.copyfileobj(raw, copy)
                yield from parquet_records(copy, on_header)


def _text_records(raw: io.BufferedReader, kind: str, encoding: str, on_header: OnHeader) -> Iterator[Record]:
    with decoded(raw, encoding) as text:
        if kind in (".csv", ".tsv"):
            yield from table_records(text, kind, on_header)
        elif kind == ".json":
            yield from parse_each(item_texts(text), item_value, text.encoding)
        elif kind == ".txt":
            yield from parse_each(lines_of(text), txt_value, text.encoding)
        else:
            yield from parse_each(lines_of(text), jsonl_value, text.encoding)
