"""Every format of prompt files, plain, compressed and damaged."""

import codecs
import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from batchgen.prompts import Reading, read_prompts
from batchgen.types import PromptFile
from tests.prompts.reading import CONTENTS, Item, error_of, prompts, read, rows, write


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_every_format(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = write(tmp_path / f"p{suffix}{'.gz' if zipped else ''}", CONTENTS[suffix]())
    items = read(path)
    assert prompts(items) == ["a fox", "a dog", "a cat"]
    first_line = 2 if suffix in (".csv", ".tsv") else 1
    for place, row in enumerate(rows(items)):
        assert (row.file, row.row, row.line, row.source) == (0, place, first_line + place, str(path))
    assert read(write(path, b"")) == []


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_other_formats_use_the_encoding_too(tmp_path: Path, suffix: str) -> None:
    content = {".json": '["né"]', ".jsonl": '"né"'}.get(suffix, "prompt\nné\n")
    for number, data in enumerate((codecs.BOM_UTF8 + content.encode(), content.encode("utf-16"))):
        assert prompts(read(write(tmp_path / f"{number}{suffix}", data))) == ["né"]
    assert prompts(read(write(tmp_path / f"l{suffix}", content.encode("latin-1")), encoding="latin-1")) == ["né"]


@pytest.mark.parametrize("suffix", CONTENTS)
def test_damaged_gzip_files(tmp_path: Path, suffix: str) -> None:
    content = CONTENTS[suffix]()
    data = gzip.compress(content.encode() if isinstance(content, str) else content)
    flipped = bytearray(data)
    flipped[-6] ^= 1  # in the checksum
    path = tmp_path / f"p{suffix}.gz"
    for broken in (data[:-4], data[: len(data) // 2], data[:5], b"not gzip", bytes(flipped), data + b"rest"):
        path.write_bytes(broken)
        error_of(lambda: read(path), path)


def test_a_truncated_gzip_file_yields_what_it_has_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "p.txt.gz"
    path.write_bytes(gzip.compress(b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(5_000)))[:50_000])
    got: list[Item] = []
    message = error_of(lambda: got.extend(read_prompts([PromptFile(path)], Reading())))
    assert len(rows(got)) > 1_000
    assert f"after line {len(got)}:" in message


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    error_of(lambda: read(tmp_path / "none.txt"), "No such file")
    error_of(lambda: read(tmp_path / "folder.txt"), "Is a directory")
    error_of(lambda: read(write(tmp_path / "p.doc", "x")), "suffix", ".parquet", ".gz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_files_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", "x")
    path.chmod(0)
    error_of(lambda: read(path), "Permission denied")


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl"])
def test_memory_is_bounded(tmp_path: Path, suffix: str) -> None:
    """One line of 32 MiB, and a file of many rows, are read in a few MiB."""
    path = tmp_path / f"p{suffix}"
    long = "z" * 2**25
    rest = [f"row {number}" for number in range(2_000)]
    if suffix == ".json":
        write(path, json.dumps(["a", long, *rest]))
    elif suffix == ".jsonl":
        write(path, "\n".join(map(json.dumps, ["a", long, *rest])))
    else:
        write(path, "\n".join(["prompt"] * (suffix != ".txt") + ["a", long, *rest]))
    del long
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_prompts([PromptFile(path)], Reading()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2_002
    assert peak < 12 * 2**20
