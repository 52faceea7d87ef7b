"""Repositories of models on the Hugging Face hub: what they hold, and what of it is in the hub's cache on this disk.

huggingface_hub is imported late. Each mistake, and each answer of the hub, becomes one line that says what to do.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.config.check import did_you_mean
from batchgen.errors import BatchgenError, DownloadError, ModelError, in_one_line
from batchgen.models.parts import INDEX_FILE

_LIMIT_S = 10.0  # for an answer of the hub
_COMMIT = re.compile(r"[0-9a-f]{40}")
# The indexes of weights in pieces, without which it is not known which pieces there are.
_READ = re.compile(r"(?:[\w.-]+/)?[\w.-]+\.index(?:\.[\w-]+)?\.json")
_MOST_NEAR = 200  # names that are looked through for the one that may be meant
_BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. `sha256` is None for small files, which the hub keeps in git itself."""

    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub at one commit. `revision`: the branch or tag that it was asked for by, or the commit."""

    name: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile]

    @property
    def cache(self) -> Path:
        """The folder of the hub's cache that belongs to the repository."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type="model")

    @property
    def folder(self) -> Path:
        """Where its files are in the cache, as far as they were fetched."""
        return self.cache / "snapshots" / self.commit

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these files are not in the cache."""
        return [name for name in names if not (self.folder / name).is_file()]

    def bytes_to_fetch(self, names: Iterable[str]) -> int:
        """How many bytes of these files have to be fetched; what a broken download left is not fetched again."""
        total = 0
        for name in self.missing(names):
            file = self.files[name]
            part = None if file.sha256 is None else self.part(file.sha256)
            blob = None if file.sha256 is None else self.blob(file.sha256)
            if blob is None or not blob.exists():
                total += file.size_bytes - (part.stat().st_size if part is not None and part.exists() else 0)
        return max(total, 0)

    def blob(self, sha256: str) -> Path:
        """Where the cache keeps the content of a large file."""
        return self.cache / "blobs" / sha256

    def part(self, sha256: str) -> Path:
        """Where the beginning of a large file is, while it is fetched."""
        return self.cache / "blobs" / f"{sha256}.batchgen.incomplete"


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit, which never changes."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def is_offline() -> bool:
    """Whether the hub is not to be asked: HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def look(name: str, revision: str | None) -> Repository:
    """What a repository holds at a revision, by default its main branch. No file is fetched.

    Raises ModelError where the hub does not have it or does not give it to this user, and DownloadError where the hub
    does not answer.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=_LIMIT_S)
    except Exception as error:  # of many kinds, each with a long text
        raise problem(name, revision, error) from error
    files = {
        one.rfilename: RemoteFile(int(one.size or 0), None if one.lfs is None else str(one.lfs.sha256))
        for one in found.siblings or ()
        if _is_plain(one.rfilename)
    }
    return Repository(name, revision or "main", str(found.sha), files)


def _is_plain(name: str) -> bool:
    # A path inside of the repository, as it may be used on this disk
    return not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


@contextmanager
def outline(repository: Repository) -> Iterator[Path]:
    """A folder that looks like the repository, for what decides by names which files a run loads.

    It holds the model's index and the indexes of weights in pieces; all other files are there and empty. A ModelError
    of what looks at it names the repository in place of the folder. Raises ModelError and DownloadError.
    """
    with tempfile.TemporaryDirectory(prefix="batchgen-") as root:
        folder = Path(root) / repository.name
        for name in repository.files:
            if name.count("/") > 1:  # a run loads nothing from there
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(repository, name) if name == INDEX_FILE or _READ.fullmatch(name) else b"")
        try:
            yield folder
        except ModelError as error:
            said = str(error).replace(f"{root}{os.sep}", "").replace("copy the whole model", "choose another model")
            raise ModelError(said) from error


def _content(repository: Repository, name: str) -> bytes:
    # Of a small file, from the cache if it is there
    from huggingface_hub import hf_hub_url

    if (repository.folder / name).is_file():
        return (repository.folder / name).read_bytes()
    url = hf_hub_url(repository.name, name, revision=repository.commit)
    try:
        return bytes(_get(url).content)
    except Exception as error:
        raise problem(repository.name, repository.revision, error) from error


def _get(url: str, **asked: str) -> Any:
    from huggingface_hub import get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # as its documents do

    response = get_session().get(url, params=asked or None, headers=build_hf_headers(), timeout=_LIMIT_S)
    hf_raise_for_status(response)
    return response


def is_passing(error: BaseException) -> bool:
    """Whether what the hub, or the network, answered may be otherwise a minute later."""
    status = _status(error)
    return status in _BUSY if status is not None else not isinstance(error, OSError | ValueError | BatchgenError)


def problem(name: str, revision: str | None, error: Exception) -> BatchgenError:
    """What a person can do about a repository, or a file of one, that the hub does not give."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RevisionNotFoundError

    if isinstance(error, BatchgenError):
        return error
    said, status = f"model {name} cannot be downloaded", _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return ModelError(f"{said}: HF_HUB_OFFLINE is set, and it is not in the cache; unset that, or fetch it first")
    if isinstance(error, GatedRepoError):
        return ModelError(f"{said}: it is gated; accept its terms at {_page(name)} and {_own_token()}")
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{said}: it has no revision {revision}{_near_revision(name, str(revision))}")
    if status in (401, 404):
        refused = bool(_token()) and status == 401
        if refused and "credentials" in str(error).lower():
            return ModelError(f"{said}: the hub refuses the token; renew HF_TOKEN")
        advice = _near_name(name) or f"; check the name, and if it is private, {_own_token()}"
        return ModelError(f"{said}: the hub has no such model{advice}")
    if status == 403:
        return ModelError(f"{said}: access is denied (403); {_own_token()}")
    if isinstance(error, ValueError):  # the hub's client refuses a name that cannot be an id
        return ModelError(f"{said}: {in_one_line(error)}")
    if status is not None:
        return DownloadError(f"{said}: the hub answers {status}; the same command goes on later")
    return DownloadError(
        f"{said}: the hub cannot be reached ({in_one_line(error)}); check the network, then the same command goes on"
    )


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _page(name: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name}"


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _own_token() -> str:
    return "use a token of that account (HF_TOKEN)" if _token() else "set HF_TOKEN to a token of your account"


def _near_name(name: str) -> str:
    owner, _, own = name.partition("/")
    for asked in ({"author": owner}, {"search": own}):
        known = [str(one.get("id")) for one in _ask("api/models", limit=str(_MOST_NEAR), **asked) or ()]
        if (near := did_you_mean(name, known)).startswith("; did you mean"):
            return near
    return ""


def _near_revision(name: str, revision: str) -> str:
    refs = _ask(f"api/models/{name}/refs") or {}
    known = [str(one.get("name")) for kind in ("branches", "tags") for one in refs.get(kind) or ()]
    return did_you_mean(revision, known) if known else ""


def _ask(path: str, **asked: str) -> Any:
    # For an advice, which may as well be left out
    from huggingface_hub import constants

    try:
        return _get(f"{constants.ENDPOINT}/{path}", **asked).json()
    except Exception:
        return None
