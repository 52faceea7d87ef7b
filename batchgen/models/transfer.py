"""Fetches files of a repository into the hub's cache, so that a download that was broken off goes on where it was.

The hub's own client (huggingface_hub 2.4) begins a file again when its process ended. Large files are therefore fetched
here: each grows under a name of its own beside the cache's content, is checked by its sha256, and is then renamed to
it. All else (small files, and the names by which a model is found) is left to the hub's client.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from batchgen.console import say
from batchgen.errors import BatchgenError, DiskFullError, DownloadError, StoppedError
from batchgen.files import replace, write_all
from batchgen.models.hub import Repository, is_commit, is_passing, problem
from batchgen.units import gib

_AT_ONCE = 4
_PIECE_BYTES = 1 << 20
_SILENT_S = 15.0  # after which a connection counts as broken
_WAITS_S = (1.0, 3.0, 10.0, 30.0, 60.0, 60.0, 60.0)  # before the next try, as long as nothing arrives
_POLL_S = 0.5
_LINE_EVERY_S = 30.0


def fetch(repository: Repository, names: Sequence[str]) -> None:
    """Fetch these files unless they are in the cache, with progress on stderr.

    The revision is noted in the cache at last, so that until then a run finds what it found before. Raises ModelError
    where the hub gives no leave, DownloadError where it breaks off and does not come back, and OSError.
    """
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # as its documents do

    missing = repository.missing(names)
    require_room(repository.bytes_to_fetch(missing))
    disable_progress_bars()  # of single files
    stop = threading.Event()
    meter = _Meter(sum(repository.files[name].size_bytes for name in missing))
    fetcher = _Fetcher(repository, meter.add, stop)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        largest_first = sorted(missing, key=lambda name: -repository.files[name].size_bytes)
        tasks = [pool.submit(fetcher.fetch, name) for name in largest_first]
        try:
            _await(tasks, meter)
        finally:
            stop.set()
            meter.close()
    if not is_commit(repository.revision):
        _note_revision(repository)


def require_room(size_bytes: int) -> None:
    """Raise DiskFullError where the cache of the hub cannot take so many bytes more."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    if size_bytes > (free := free_bytes(cache)):
        raise DiskFullError(
            f"the disk of {cache} is too small: {gib(size_bytes)} are still to be fetched, and {gib(free)} are free; "
            "make room, or set HF_HUB_CACHE to a folder on another disk"
        )


def free_bytes(folder: Path) -> int:
    """What is free where a folder is or will be. Raises OSError."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _note_revision(repository: Repository) -> None:
    reference = repository.cache / "refs" / repository.revision
    try:
        if not reference.is_file() or reference.read_text().strip() != repository.commit:
            reference.parent.mkdir(parents=True, exist_ok=True)
            replace(reference, repository.commit.encode())
    except OSError as error:  # a cache that others look after; a plan knows the commit without it
        say(f"the cache of the hub does not take the note that {repository.revision} is {repository.commit}: {error}")


def _await(tasks: Sequence[Future[None]], meter: "_Meter") -> None:
    pending = set(tasks)
    try:
        while pending:
            done, pending = wait(pending, _POLL_S)
            meter.show()
            for task in done:
                task.result()
    finally:
        for task in pending:
            task.cancel()


class _Meter:
    """Counts bytes for all threads and shows them: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total_bytes: int) -> None:
        from tqdm import tqdm

        self._total, self._done, self._shown = total_bytes, 0, 0
        self._lock = threading.Lock()
        self._is_terminal = sys.stderr.isatty()
        self._next_s = time.monotonic() + _LINE_EVERY_S
        self._bar = tqdm(
            total=total_bytes, unit="B", unit_scale=True, desc="download", disable=not self._is_terminal, leave=False
        )

    def add(self, size_bytes: int) -> None:
        """Count bytes that arrived; fewer than 0 where a file begins again."""
        with self._lock:
            self._done += size_bytes

    def show(self) -> None:
        """Show the state, if it is time to."""
        done = self._done
        if self._is_terminal:
            self._bar.update(done - self._shown)
            self._shown = done
        elif time.monotonic() >= self._next_s:
            self._next_s += _LINE_EVERY_S
            say(f"download: {gib(done)} of {gib(self._total)} are here")

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


@dataclass(frozen=True, slots=True)
class _Fetcher:
    """Fetches files of one repository. `count` is told the bytes that are here; `stop` ends it."""

    repository: Repository
    count: Callable[[int], None]
    stop: threading.Event

    def fetch(self, name: str) -> None:
        """Have a file in the cache. Raises as `fetch` of the module does."""
        from huggingface_hub import hf_hub_download

        repository, file = self.repository, self.repository.files[name]
        if self.stop.is_set():
            return
        if file.sha256 is not None and not repository.blob(file.sha256).exists():
            self._fetch_content(name, file.sha256, file.size_bytes)
        else:
            self.count(file.size_bytes)
        try:
            # The content of a large file is there by now, so that this only gives it its name in the snapshot.
            hf_hub_download(repository.name, name, revision=repository.commit)
        except Exception as error:
            if _is_of_disk(error):
                raise
            raise problem(repository.name, repository.revision, error) from error

    def _fetch_content(self, name: str, sha256: str, size_bytes: int) -> None:
        part, blob = self.repository.part(sha256), self.repository.blob(sha256)
        part.parent.mkdir(parents=True, exist_ok=True)
        with _opened(part) as target:
            self._wait_for_others(target, name)
            if blob.exists():  # another command fetched it meanwhile
                part.unlink(missing_ok=True)
                self.count(size_bytes)
                return
            digest = _begun(target, size_bytes)
            self.count(target.tell())
            self._receive(name, size_bytes, target, digest)
            if digest.hexdigest() != sha256:
                part.unlink()
                raise DownloadError(
                    f"{self.repository.name}/{name} did not arrive as it is on the hub (its sha256 differs): the same "
                    "command fetches it again"
                )
            os.fsync(target.fileno())
            os.rename(part, blob)

    def _wait_for_others(self, target: BinaryIO, name: str) -> None:
        """Hold the file alone on this machine. Without locks it may be fetched twice; both write the same bytes."""
        told = False
        while True:
            try:
                fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say(f"another command is fetching {name}: waiting for it")
                told = True
                self._pause(_POLL_S)
            except OSError:
                return
            else:
                return

    def _receive(self, name: str, size_bytes: int, target: BinaryIO, digest: Any) -> None:
        """Fetch the rest of a file, and go on after breaks until nothing has come for minutes."""
        waits = iter(_WAITS_S)
        while (begun_at := target.tell()) < size_bytes:
            error: Exception = EOFError(f"the hub ended {name} too early")
            try:
                for piece in self._pieces(name, begun_at):
                    write_all(target.fileno(), piece)
                    digest.update(piece)
                    self.count(len(piece))
                    self._pause(0.0)
            except Exception as broken:
                if isinstance(broken, BatchgenError) or _is_of_disk(broken):
                    raise
                error = broken
            if target.tell() >= size_bytes:
                return
            waits = iter(_WAITS_S) if target.tell() > begun_at else waits
            wait_s = next(waits, None) if is_passing(error) else None
            if wait_s is None:
                raise problem(self.repository.name, self.repository.revision, error) from error
            self._pause(wait_s)

    def _pieces(self, name: str, begun_at: int) -> Iterator[bytes]:
        """What follows the first bytes of a file, as the hub sends it."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self.repository.name, name, revision=self.repository.commit)
        # Compressed, a part of a file would be no part of its content.
        headers = build_hf_headers() | {"Range": f"bytes={begun_at}-", "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, timeout=_SILENT_S) as answer:
            hf_raise_for_status(answer)
            skipped = begun_at if answer.status_code == HTTPStatus.OK else 0  # a proxy may send the whole file again
            for piece in answer.iter_bytes():  # as it arrives: what is held back would be lost where it breaks
                yield piece[skipped:]
                skipped = max(skipped - len(piece), 0)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise StoppedError("stopped while a model was fetched; the same command goes on")


@contextmanager
def _opened(part: Path) -> Iterator[BinaryIO]:
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with open(fd, "r+b", buffering=0) as target:
        yield target


def _begun(target: BinaryIO, size_bytes: int) -> Any:
    """Go to the end of what an earlier command fetched; the digest up to there."""
    digest = hashlib.sha256()
    if os.fstat(target.fileno()).st_size > size_bytes:
        target.truncate(0)
    while piece := target.read(_PIECE_BYTES):
        digest.update(piece)
    return digest


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None
