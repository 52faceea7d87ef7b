"""The formats of prompt files. Each is read as a stream of records, and a broken record spoils no other."""

import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import PurePath
from typing import IO, cast

from batchgen.errors import PromptError
from batchgen.prompts.advice import unread_kind
from batchgen.prompts.json_files import json_records
from batchgen.prompts.lines import decoded, line_records, lines_of, txt_value
from batchgen.prompts.parquet import parquet_records
from batchgen.prompts.records import DamagedFileError, HeaderReader, Record, path_name
from batchgen.prompts.settings import Reading
from batchgen.prompts.sniff import GZIP, HEAD_BYTES, refuse_foreign
from batchgen.prompts.tables import table_records
from batchgen.types import PromptFile

_FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")  # each may be followed by .gz


def format_of(name: str) -> str:
    """Return the format of the file of this path or address, its suffix. Raises PromptError for one that is not known.

    An address has no query.
    """
    suffix = PurePath(PurePath(name).name.lower().removesuffix(".gz")).suffix
    if (advice := unread_kind(suffix)) is not None:
        raise PromptError(f"{path_name(name)}: {advice}")
    if suffix not in _FORMATS:
        known = " ".join(_FORMATS)
        raise PromptError(f"{path_name(name)}: unknown suffix; use one of {known}, or one of these followed by .gz")
    return suffix


def read_records(file: PromptFile, reading: Reading, header: HeaderReader) -> Iterator[Record]:
    """Yield the records of a file. If it has a header, that goes to `header`, once, before the first record.

    Whether it is gzipped is seen by its content. Raises DamagedFileError, OSError, EOFError, zlib.error (gzip) or
    UnicodeError if the file cannot be read.
    """
    kind = format_of(file.name)
    with file.path.open("rb") as plain:
        named_so = file.name.lower().endswith(".gz")
        head = plain.peek(len(GZIP))
        if named_so and head and not head.startswith(GZIP[:2]):
            raise DamagedFileError("it is not gzipped: take .gz off its name")
        zipped = named_so or head.startswith(GZIP)
        with gzip.open(plain) if zipped else plain as raw:
            if kind != ".parquet":
                yield from _text_records(cast(io.BufferedReader, raw), kind, reading, header)
            elif not zipped:
                yield from parquet_records(cast(IO[bytes], raw), header)
            else:
                with tempfile.TemporaryFile() as copy:  # parquet is read from its end, gzip from its start
                    shutil.copyfileobj(raw, copy)
                    yield from parquet_records(copy, header)


def _text_records(raw: io.BufferedReader, kind: str, reading: Reading, header: HeaderReader) -> Iterator[Record]:
    head = raw.peek(HEAD_BYTES)
    with decoded(raw, reading.encoding) as text:
        refuse_foreign(head, text.encoding)
        if kind in (".csv", ".tsv"):
            yield from table_records(text, kind, reading, header)
        elif kind == ".txt":
            yield from line_records(lines_of(text), txt_value, text.encoding, reading)
        else:
            yield from json_records(text, kind, reading, header)
