"""Tars whose bytes depend only on the samples: USTAR, mtime 0, uid and gid 0, members sorted by name."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from batchgen.types import Sample

# Two empty blocks end a tar.
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


def tar_members(sample: Sample) -> bytes:
    """The sample's files as tar members <key>.<extension>, without the end of a tar."""
    pieces = []
    for extension in sorted(sample.files):
        data = sample.files[extension]
        header = tarfile.TarInfo(f"{sample.key}.{extension}")
        header.size = len(data)
        header.mode = 0o644
        pieces += [header.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
    return b"".join(pieces)


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {extension: bytes}) of each sample in a tar, in order. Raises tarfile.TarError, OSError."""
    key: str | None = None
    files: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name, _, extension = member.name.partition(".")
            if name != key and key is not None:
                yield key, files
                files = {}
            key = name
            content = tar.extractfile(member) if member.isreg() else None
            files[extension] = content.read() if content else b""
    if key is not None:
        yield key, files
