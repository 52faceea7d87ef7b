"""What the first bytes of a file say that its name does not: packed, of another program, of another encoding."""

import gzip
from pathlib import Path
from typing import BinaryIO, cast

from batchgen.prompts.records import DamagedFileError

HEAD_BYTES = 4096
GZIP = b"\x1f\x8b\x08"
_SHEET = "save it as CSV UTF-8 in the program that made it"
_FOREIGN = (
    (GZIP, "it is packed by gzip twice: unpack it once (gunzip)"),
    (b"PK\x03\x04", f"it is a zip archive or a spreadsheet (xlsx, ods), not text: unpack it, or {_SHEET}"),
    (b"\xd0\xcf\x11\xe0", f"it is an old Excel file (xls), not text: {_SHEET}"),
    (b"PAR1", "it is a parquet file: give it the suffix .parquet"),
    (b"ARROW1", "it is an Arrow file: write it as parquet"),
    (b"\x28\xb5\x2f\xfd", "it is packed by zstd: unpack it (zstd -d), or pack it by gzip"),
    (b"\xfd7zXZ", "it is packed by xz: unpack it (xz -d), or pack it by gzip"),
    (b"BZh", "it is packed by bzip2: unpack it (bunzip2), or pack it by gzip"),
)
_WIDE = ("utf-16", "utf-32")


def is_gzipped(path: Path) -> bool:
    """Whether the file is gzipped, by its first bytes. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def unpacked(path: Path) -> BinaryIO:
    """The file's bytes, unpacked if it is gzipped. Raises OSError."""
    return cast(BinaryIO, gzip.open(path)) if is_gzipped(path) else path.open("rb")


def refuse_foreign(head: bytes, codec: str) -> None:
    """Raise DamagedFileError if the first bytes of a text file are not text in this codec at all."""
    for magic, said in _FOREIGN:
        if head.startswith(magic):
            raise DamagedFileError(said)
    if not codec.startswith(_WIDE) and (wide := _wide_codec(head)) is not None:
        raise DamagedFileError(f"it is {wide} text without a byte order mark: set job.encoding={wide}")


def _wide_codec(head: bytes) -> str | None:
    """The codec of text whose characters take two or four bytes, by where its zero bytes are; None for other text."""
    count = len(head) // 4
    if not count:
        return None
    zeros = [head[place : 4 * count : 4].count(0) / count for place in range(4)]
    full, empty = [share > 0.6 for share in zeros], [share < 0.1 for share in zeros]
    codecs = {
        "utf-32-le": (1, 2, 3),
        "utf-32-be": (0, 1, 2),
        "utf-16-le": (1, 3),
        "utf-16-be": (0, 2),
    }
    for codec, places in codecs.items():
        if all(full[place] if place in places else empty[place] for place in range(4)):
            return codec
    return None
