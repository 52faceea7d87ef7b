"""Copies of files in a bucket, or in any other place that fsspec writes to, such as a mounted folder.

How a copy is checked, the first of these that the store allows:
- S3 and what speaks its language: the size, and the ETag, which is the MD5 of the content, or that of the MD5s of its
  parts where it was sent in parts. Where keys of the store's own make an ETag that is neither, the copy is read back.
- Google Cloud Storage: the size and the MD5 that the store states.
- Any other: the copy is read back and hashed. In a folder of this machine it is flushed to the disk before.
"""

import base64
import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from batchgen.errors import ConfigError, StoreError, in_one_line
from batchgen.files import sync_directory
from batchgen.stores.filesystem import filesystem, is_address

KEY = "output.copy_to"
_PASSWORD = re.compile(r"://[^/]*:[^/]*@")
_PART_BYTES = 50 << 20  # of a file that is sent to S3 in parts
_PARTS_AT_ONCE = 2  # each is in memory
_PIECE_BYTES = 1 << 20
# What libraries of stores raise where credentials are missing or a name is not valid, beside Python's own errors.
_MISTAKES = (
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError",
    "ParamValidationError", "DefaultCredentialsError", "RefreshError", "GoogleAuthError",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checked:
    """How a copy was checked, for people, and the checksum that the store states of it; None where it states none."""

    how: str
    checksum: str | None


@dataclass(frozen=True, slots=True)
class Digests:
    """What the content of a file hashes to: sha256 and md5 in hex, and the ETag that S3 gives it if sent in parts."""

    bytes: int
    sha256: str
    md5: str
    etag: str

    @classmethod
    def of(cls, path: Path) -> "Digests":
        """Read a file once. Raises OSError."""
        sha256, md5, parts, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), [], 0
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                if size % _PART_BYTES == 0:
                    parts.append(hashlib.md5(usedforsecurity=False))
                for one in (sha256, md5, parts[-1]):
                    one.update(piece)
                size += len(piece)
        whole = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False).hexdigest()
        return cls(size, sha256.hexdigest(), md5.hexdigest(), f"{whole}-{len(parts)}")


class Bucket:
    """A place that copies go to. Its methods raise StoreError where it cannot be reached or does not take a file."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError where the address is not valid, or its package is not installed."""
        if not is_address(address) and not address.startswith(("/", "file:///")):
            raise ConfigError(
                f"{KEY}={address} is not valid: it must be an address such as s3://BUCKET/FOLDER, or the full path of "
                "a folder"
            )
        if _PASSWORD.search(address):
            raise ConfigError(
                f"{KEY} must not hold a password, since a run keeps it: each store reads it from its own environment "
                "variables or files"
            )
        self.address = address.rstrip("/")
        self._system, root = filesystem(KEY, address)
        self._root = root.rstrip("/")

    @cached_property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self._system.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    @property
    def _is_folder(self) -> bool:
        return "file" in self._protocols

    def url(self, name: str) -> str:
        """The address of a file by its name here."""
        return f"{self.address}/{name}"

    def check(self) -> None:
        """Write a small file and remove it. Raises ConfigError for a mistake of the user, else StoreError."""
        name = f"{self._root}/.batchgen.{uuid.uuid4().hex}"
        try:
            if self._is_folder and not Path(self._root).parent.is_dir():
                raise ConfigError(f"{KEY}={self.address}: there is no folder {Path(self._root).parent}")
            self._make_folder(name)
            self._system.pipe_file(name, b"batchgen tries whether it may write here\n")
            self._system.rm_file(name)
        except ConfigError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | NotImplementedError):
                raise ConfigError(f"{KEY}={self.address} cannot be written to: {in_one_line(error)}") from error
            if type(error).__name__ in _MISTAKES or getattr(error, "errno", None) == 30:  # EROFS
                raise ConfigError(f"{KEY}={self.address} cannot be written to: {in_one_line(error)}") from error
            raise StoreError(f"{self.address} cannot be reached: {in_one_line(error)}") from error

    def put(self, source: Path, name: str, digests: Digests) -> Checked:
        """Copy a file and check the copy. Raises StoreError, also where the copy differs."""
        path = f"{self._root}/{name}"
        try:
            self._make_folder(path)
            in_parts = {"chunksize": _PART_BYTES, "max_concurrency": _PARTS_AT_ONCE} if "s3" in self._protocols else {}
            self._system.put_file(str(source), path, **in_parts)
            if self._is_folder:
                _flush(Path(path))
            info = self._info(path)
            checksum = _checksum(info)
            if checksum in (f"etag:{digests.md5}", f"etag:{digests.etag}", f"md5:{digests.md5}"):
                problem = _size_problem(info, digests.bytes)
                how = f"by its size and the store's {'ETag' if checksum.startswith('etag') else 'MD5'}"
            else:
                problem, how = self._read_back(path, digests.bytes, digests.sha256)
        except Exception as error:
            raise StoreError(f"{self.url(name)} cannot be written: {in_one_line(error)}") from error
        if problem is not None:
            raise StoreError(f"the copy {self.url(name)} {problem}")
        return Checked(how, checksum)

    def ask(self, name: str, size: int, sha256: str, checksum: str | None, deep: bool) -> tuple[str | None, str]:
        """What is wrong with a copy (None: nothing), and how it was checked: by size and checksum, or read if `deep`.

        `checksum`: what the store stated of it when it was copied. Raises StoreError where the store does not answer.
        """
        path = f"{self._root}/{name}"
        try:
            info = self._info(path)
            if deep:
                return self._read_back(path, size, sha256)
        except FileNotFoundError:
            return "is missing there", "by its name"
        except Exception as error:
            raise StoreError(f"{self.url(name)} cannot be read: {in_one_line(error)}") from error
        problem, now = _size_problem(info, size), _checksum(info)
        if problem is None and checksum is not None and now is not None:
            return None if now == checksum else "has another checksum than was copied", "by size and checksum"
        return problem, "by size"

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name. Raises StoreError where the store does not answer."""
        try:
            self._info(f"{self._root}/{name}")
        except FileNotFoundError:
            return False
        except Exception as error:
            raise StoreError(f"{self.url(name)} cannot be read: {in_one_line(error)}") from error
        return True

    def _info(self, path: str) -> dict[str, Any]:
        self._system.invalidate_cache(self._system._parent(path))
        return dict(self._system.info(path))

    def _read_back(self, path: str, size: int, sha256: str) -> tuple[str | None, str]:
        digest, read = hashlib.sha256(), 0
        with self._system.open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                read += len(piece)
        same = (read, digest.hexdigest()) == (size, sha256)
        return None if same else "differs from what was committed", "read back, by its sha256"

    def _make_folder(self, path: str) -> None:
        if self._is_folder:  # a bucket has no folders, and s3fs would make the bucket
            os.makedirs(os.path.dirname(path), exist_ok=True)


def _checksum(info: dict[str, Any]) -> str | None:
    if info.get("ETag"):
        return f"etag:{str(info['ETag']).strip(chr(34))}"
    if info.get("md5Hash"):
        return f"md5:{base64.b64decode(info['md5Hash']).hex()}"
    return None


def _size_problem(info: dict[str, Any], size: int) -> str | None:
    return None if info["size"] == size else f"has {info['size']:,} bytes, but {size:,} were committed"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    sync_directory(path.parent)
