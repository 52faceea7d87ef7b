"""Copies in a data set on the Hugging Face hub: hf://datasets/OWNER/NAME[@REVISION][/FOLDER].

Contents are uploaded first and become files of the data set together, in one commit: the hub allows few commits an
hour. Files go to FOLDER. Without one they go to data/, and the data set's card goes to the top, where the hub reads it.
A copy is checked by the sha256 that the hub states of a large file, or by git's id of a small one. The token is read
from HF_TOKEN and from nowhere else. huggingface_hub is imported late.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from batchgen.errors import ConfigError, StoreError, in_one_line
from batchgen.stores.bucket import KEY, Checked

PREFIX = "hf://"
DEFAULT_FOLDER, CARD = "data", "README.md"
_ADDRESS = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.+?))?/*")
_BUSY = (408, 409, 412, 425, 429)  # another commit was first, or too many requests: as is every answer from 500 on
_TRIES, _FIRST_PAUSE_S = 5, 2.0
_ASKED_AT_ONCE = 100  # paths in a request
_THREADS = 2


class Hub:
    """A data set that copies go to. Its methods raise StoreError where the hub cannot be reached or refuses."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError where the address is not that of a data set."""
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ConfigError(f"{KEY}={address} is not valid: it must be hf://datasets/OWNER/NAME or a folder in it")
        self.address = address.rstrip("/")
        self._repo, self._revision, folder = found[1], found[2] or "main", found[3]
        self._folder = folder or DEFAULT_FOLDER
        self._has_card = folder is None
        self._top = f"{PREFIX}datasets/{found[1]}" + (f"@{found[2]}" if found[2] else "")
        self._where = {"repo_id": self._repo, "repo_type": "dataset"}

    def url(self, name: str) -> str:
        """The address of a file by its name here."""
        return f"{self._top}/{self._path(name)}"

    def check(self) -> None:
        """Ask whether this user may write to the data set. Raises ConfigError for a mistake, else StoreError."""
        if not os.environ.get("HF_TOKEN"):
            raise ConfigError(f"{KEY}={self.address} needs a token: set the environment variable HF_TOKEN")
        api = _api()
        try:
            with suppress(TypeError):  # an older version does not ask for the right to write
                api.auth_check(**self._where, write=True)
            api.repo_info(**self._where, revision=self._revision)
        except Exception as error:
            code = _status(error)
            if code in (401, 403, 404) or isinstance(error, ValueError):
                why = f"{_why(error)}: make the data set first, and see that HF_TOKEN may write to it"
                raise ConfigError(f"{KEY}={self.address} cannot be written to: {why}") from error
            raise StoreError(f"{self.address} cannot be reached: {_why(error)}") from error

    def upload(self, files: Sequence[tuple[Path, str]]) -> list[Any]:
        """Upload (file, its name here) without a commit; return what `commit` wants. Raises StoreError."""
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        added = [CommitOperationAdd(self._path(name), str(path)) for path, name in files]
        try:
            _api().preupload_lfs_files(
                **self._where, revision=self._revision, additions=added, num_threads=_THREADS, free_memory=False
            )
        except Exception as error:
            raise StoreError(f"{self.address} takes no file: {_why(error)}") from error
        return added

    def commit(self, added: Sequence[Any], message: str, pause: Callable[[float], object] = time.sleep) -> None:
        """Make what was uploaded files of the data set, in one commit. Raises StoreError after some tries.

        `pause` waits so many seconds, where another commit was first or the hub asks for patience.
        """
        for tried in range(1, _TRIES + 1):
            try:
                _api().create_commit(
                    **self._where, revision=self._revision, operations=list(added), commit_message=message
                )
                return
            except Exception as error:
                code = _status(error) or 500
                if tried == _TRIES or not (code in _BUSY or code >= 500):
                    raise StoreError(f"{self.address} takes no commit: {_why(error)}") from error
            pause(_FIRST_PAUSE_S * 2**tried)

    def checked(self, files: Sequence[tuple[Path, str, str]]) -> list[Checked]:
        """How each (file, its name here, its sha256) is found in the data set. Raises StoreError where one differs."""
        infos = self._infos([name for _, name, _ in files])
        found = []
        for path, name, sha256 in files:
            info = infos.get(self._path(name))
            same = info is not None and info.size == path.stat().st_size
            if info is None or not same or (info.lfs.sha256 != sha256 if info.lfs else info.blob_id != _git_id(path)):
                raise StoreError(f"the copy {self.url(name)} differs from what was committed")
            how = "by its size and the hub's sha256" if info.lfs else "by its size and git's id"
            found.append(Checked(how, _checksum(info)))
        return found

    def ask(self, name: str, size: int, sha256: str, checksum: str | None, deep: bool) -> tuple[str | None, str]:
        """What is wrong with a copy (None: nothing), and how it was checked; as `Bucket.ask`.

        The hub states the sha256 of large files, so nothing is read for `deep`. Raises StoreError.
        """
        info = self._infos([name]).get(self._path(name))
        if info is None:
            return "is missing there", "by its name"
        if info.size != size:
            return f"has {info.size:,} bytes, but {size:,} were committed", "by size"
        same = info.lfs.sha256 == sha256 if info.lfs else _checksum(info) == checksum
        return None if same else "differs from what was committed", "by size and checksum"

    def holds(self, name: str) -> bool:
        """Whether there is a file of this name. Raises StoreError."""
        return bool(self._infos([name]))

    def _path(self, name: str) -> str:
        return name if name == CARD and self._has_card else f"{self._folder}/{name}"

    def _infos(self, names: Sequence[str]) -> dict[str, Any]:
        paths = [self._path(name) for name in names]
        found: dict[str, Any] = {}
        try:
            for first in range(0, len(paths), _ASKED_AT_ONCE):
                some = paths[first : first + _ASKED_AT_ONCE]
                infos = _api().get_paths_info(**self._where, paths=some, revision=self._revision)
                found |= {info.path: info for info in infos if hasattr(info, "size")}
        except Exception as error:
            raise StoreError(f"{self.address} does not answer: {_why(error)}") from error
        return found


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=os.environ.get("HF_TOKEN") or False)


def _status(error: Exception) -> int | None:
    """The status of an HTTP answer; None where there was none."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def _why(error: Exception) -> str:
    """What the hub said, else what the error says, in one line."""
    said = str(getattr(error, "server_message", None) or "").strip()
    return said.rstrip(".") if said else in_one_line(error)


def _checksum(info: Any) -> str:
    return f"lfs:{info.lfs.sha256}" if info.lfs else f"git:{info.blob_id}"


def _git_id(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
