"""Files that are not what their names say: each is read, or refused in a line that says what to do."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pytest

from batchgen.prompts.records import DamagedFileError
from batchgen.prompts.sniff import HEAD_BYTES, is_gzipped, refuse_foreign
from tests.prompts.reading import CONTENTS, error_of, parquet, prompts, read, write

TEXT = "a red car\na café\nthe dog's bone\n"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("p.txt", TEXT)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_gzipped_file_is_read_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    content = CONTENTS[suffix]()
    path = tmp_path / f"p{suffix}"
    path.write_bytes(gzip.compress(content.encode() if isinstance(content, str) else content))
    assert is_gzipped(path)
    assert prompts(read(path)) == ["a fox", "a dog", "a cat"]


def test_a_name_that_says_gz_of_a_file_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "p.txt.gz").write_text(TEXT)
    error_of(lambda: read(tmp_path / "p.txt.gz"), "not gzipped", "take .gz off its name")
    (tmp_path / "p.txt.gz").rename(tmp_path / "p.txt")
    assert len(prompts(read(tmp_path / "p.txt"))) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zipped(), ["zip archive or a spreadsheet (xlsx", "CSV UTF-8"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), ["old Excel file (xls)", "CSV UTF-8"]),
        (gzip.compress(gzip.compress(TEXT.encode(), mtime=0), mtime=0), ["by gzip twice"]),
        (bz2.compress(TEXT.encode()), ["bunzip2"]),
        (lzma.compress(TEXT.encode()), ["xz -d"]),
        (b"\x28\xb5\x2f\xfd" + bytes(50), ["zstd -d"]),
        (b"ARROW1\0\0" + bytes(50), ["Arrow file", "parquet"]),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_files_of_other_programs_are_named(tmp_path: Path, data: bytes, words: list[str], suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_bytes(data)
    error_of(lambda: read(path), path, *words)


def test_a_parquet_file_with_another_name(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(parquet({"prompt": ["a fox"]}))
    error_of(lambda: read(path), "give it the suffix .parquet")
    assert prompts(read(path.rename(tmp_path / "p.parquet"))) == ["a fox"]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_wide_text_without_a_mark_is_refused_and_read_with_the_key_that_it_is_told(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    header = "" if suffix == ".txt" else "prompt\n"
    path = write(tmp_path / f"p{suffix}", (header + TEXT).encode(codec))
    error_of(lambda: read(path), path, f"set job.encoding={codec}")
    error_of(lambda: read(path, encoding="cp1252"), f"set job.encoding={codec}")
    assert prompts(read(path, encoding=codec)) == TEXT.splitlines()


@pytest.mark.parametrize("data", [b"", b"a", b"a\0b\n" + b"a fox\n" * 99, TEXT.encode() * 200, "日本語".encode() * 99])
def test_text_is_not_taken_for_anything_else(data: bytes) -> None:
    refuse_foreign(data[:HEAD_BYTES], "utf-8")


def test_a_codec_that_is_wide_is_believed() -> None:
    refuse_foreign(TEXT.encode("utf-16-le"), "utf-16-le")
    with pytest.raises(DamagedFileError):
        refuse_foreign(TEXT.encode("utf-16-le"), "utf-8")


@pytest.mark.parametrize("name", ["p.xlsx", "p.XLS", "p.ods"])
def test_a_spreadsheet_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    error_of(lambda: read(write(tmp_path / name, b"x")), "a spreadsheet cannot be read", "CSV UTF-8")
