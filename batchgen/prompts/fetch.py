"""Prompt files behind addresses, such as s3://BUCKET/FILE.jsonl. Each is fetched once, and read from its copy here.

The web is read by urllib, which streams a file of any size and needs no package; all others by fsspec.
"""

import errno
import fnmatch
import glob
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from batchgen import __version__
from batchgen.config.schema import without_query
from batchgen.console import say
from batchgen.errors import ConfigError, PromptError, in_one_line
from batchgen.prompts.formats import format_of
from batchgen.prompts.records import path_name
from batchgen.stores.filesystem import filesystem
from batchgen.types import PromptFile

_KEY = "job.prompts"
_TIMEOUT_S = 60.0  # for the next bytes of a file on the web
_PIECE_BYTES = 1 << 20
_WAITS_S = (1.0, 3.0)  # before a server that is busy is asked again
_BUSY = (429, 500, 502, 503, 504)
_MOST_NAME_CHARS = 100
_ACCESS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "set HF_TOKEN",
}


class _AwayError(PromptError):
    """A file that cannot be fetched: its name, and what is wrong."""

    def __init__(self, name: str, what: str, do: str) -> None:
        super().__init__(f"{path_name(name)}: {what}; {do}")
        self.told = f"{path_name(name)}: {what}"


class Fetcher:
    """Fetches the prompt files of one command into a folder."""

    def __init__(self, folder: Path, planned: Mapping[str, Path]) -> None:
        """`folder` is an empty one. `planned`: the copies in the run's plan, by the files' names."""
        self._folder = folder
        self._planned = planned
        self._fetched: dict[str, PromptFile] = {}
        self._addresses: dict[str, str] = {}  # whole, by the files' names

    def files(self, pattern: str) -> list[PromptFile]:
        """The files that an address, or a glob of addresses, names. Each is fetched the first time only.

        Where one cannot be fetched and the plan has a copy, that is used, and a line says so. Raises PromptError, in
        one line, where there is none, and ConfigError where the address needs a package that is not installed.
        """
        _refuse_password(pattern)
        try:
            addresses = list(_listed(pattern))
            if any(without_query(one) not in self._fetched for one in addresses):
                say(f"fetching {path_name(_settled(pattern))}")
            return [self._file(address) for address in addresses]
        except _AwayError as error:
            name = _settled(pattern)
            copies = [one for one in self._planned if one == name or fnmatch.fnmatchcase(one, name)]
            if not copies:
                raise
            say(
                f"{error.told}: {'the copy in the plan counts' if len(copies) == 1 else 'the copies in the plan count'}"
            )
            return [self._keep(one, self._planned[one]) for one in copies]

    def _file(self, address: str) -> PromptFile:
        name = without_query(address)
        if self._addresses.setdefault(name, address) != address:
            raise PromptError(
                f"{path_name(name)} is named with two different queries, which are not kept: download the files, and "
                f"name the local ones in {_KEY}"
            )
        if name not in self._fetched:
            format_of(name)
            target = self._place(name)
            _fetch(name, address, target)
            self._fetched[name] = PromptFile(target, name)
        return self._fetched[name]

    def _keep(self, name: str, copy: Path) -> PromptFile:
        """A copy of the plan's copy: the plan may give way to another while the file is read."""
        if name not in self._fetched:
            self._fetched[name] = PromptFile(self._place(name), name)
            shutil.copyfile(copy, self._fetched[name].path)
        return self._fetched[name]

    def _place(self, name: str) -> Path:
        """A new path with the file's own name, as far as that is harmless."""
        own = re.sub(r"[^\w.-]+", "_", urllib.parse.unquote(name.rpartition("/")[2]))[-_MOST_NAME_CHARS:]
        folder = self._folder / f"{len(self._fetched):04d}"
        folder.mkdir(exist_ok=True)
        return folder / own.lstrip(".-")


def _refuse_password(pattern: str) -> None:
    who, at, host = pattern.partition("://")[2].partition("/")[0].rpartition("@")
    if at and (":" in who or _is_web(pattern)):
        raise PromptError(
            f"{_KEY} has an address of {host} with a user or a password in it, which would be kept in the run: leave "
            "them out, or download the file and name the local one"
        )


def _is_web(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _settled(pattern: str) -> str:
    """The name of the file that a pattern names, or the pattern in the form of such names."""
    if _is_web(pattern):
        return without_query(pattern)
    system, path = filesystem(_KEY, pattern)
    return str(system.unstrip_protocol(path))


def _listed(pattern: str) -> Iterator[str]:
    """The addresses of the files that a pattern names, sorted. Raises PromptError."""
    if "::" in pattern:
        raise PromptError(f"{path_name(without_query(pattern))}: name the file itself in {_KEY}, without ::")
    if _is_web(pattern):
        if "*" in without_query(pattern):
            name = path_name(without_query(pattern))
            raise PromptError(f"{name}: the web cannot list files; name each file in {_KEY}, as a list")
        yield pattern
        return
    try:
        system, path = filesystem(_KEY, pattern)
        system.invalidate_cache()  # of earlier lists
        if not glob.has_magic(path) or system.exists(path):
            yield str(system.unstrip_protocol(path))
            return
        found = sorted(one for one, facts in system.glob(path, detail=True).items() if facts["type"] == "file")
    except ConfigError:
        raise
    except Exception as error:
        raise _problem(pattern, error) from error
    if not found:
        raise _AwayError(pattern, "no file matches it", f"correct it in {_KEY}")
    yield from (str(system.unstrip_protocol(one)) for one in found)


def _fetch(name: str, address: str, target: Path) -> None:
    """Fetch a file; a server that is busy, or ended too early, is asked again. Raises PromptError, and OSError."""
    for wait_s in (*_WAITS_S, None):
        try:
            (_from_web if _is_web(address) else _from_store)(name, address, target)
        except PromptError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if wait_s is None or not (isinstance(error, EOFError) or _status(error) in _BUSY):
                raise _problem(name, error) from error
            time.sleep(wait_s)
        else:
            return


def _from_web(name: str, address: str, target: Path) -> None:
    import urllib.request  # late: with the protocols behind it, it takes as long as all of batchgen's own modules

    quoted = urllib.parse.quote(address, safe=":/?#[]@!$&'()*+,;=%~")
    request = urllib.request.Request(quoted, headers={"User-Agent": f"batchgen/{__version__}"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, target.open("wb") as file:
        if answer.headers.get_content_type() == "text/html":
            raise PromptError(
                f"{path_name(name)} is a page to look at, not a file of prompts: name the address of the file itself "
                "(on GitHub, that of Raw; on the Hugging Face hub, hf://datasets/OWNER/NAME/FILE)"
            )
        shutil.copyfileobj(answer, file, _PIECE_BYTES)
        _check_length(file.tell(), answer.headers.get("Content-Length"))


def _from_store(name: str, address: str, target: Path) -> None:
    system, path = filesystem(_KEY, address)
    facts = system.info(path)
    if facts["type"] == "directory":
        raise PromptError(f"{path_name(name)} is not a file; name the files in it, or use a glob like *.csv")
    system.get_file(path, str(target))
    _check_length(target.stat().st_size, facts.get("size"))


def _check_length(size_bytes: int, stated: Any) -> None:
    if stated is not None and size_bytes != int(stated):
        raise EOFError(f"it ended after {size_bytes} of {stated} bytes")


def _problem(name: str, error: Exception) -> _AwayError:
    """What a person can do about a file that cannot be fetched."""
    status, protocol = _status(error), name.partition("://")[0]
    here = f"download it, and name the local file in {_KEY}"
    access = _ACCESS.get(protocol, f"{here} (a link that was signed may have expired)")
    if status == 404:
        private = f"; if it is private, {access}" if protocol == "hf" else ""
        return _AwayError(name, "there is no such file (404)", f"correct the address in {_KEY}{private}")
    if status in (401, 403) or "Credentials" in type(error).__name__:
        return _AwayError(name, f"access is denied ({status or 'no credentials'})", access)
    if status is not None:
        words = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        return _AwayError(name, f"the server answers {f'{status} {words}'.strip()}", f"try again later, or {here}")
    reason = getattr(error, "reason", error)  # that of an error of urllib
    said = isinstance(reason, OSError) and reason.strerror  # without its number
    why = said or (in_one_line(reason) if isinstance(reason, Exception) else str(reason))
    if isinstance(error, ValueError):
        return _AwayError(name, f"it cannot be used ({path_name(why)})", f"correct the address in {_KEY}")
    return _AwayError(name, f"it cannot be reached ({path_name(why)})", f"check the network, or {here}")


def _status(error: BaseException | None) -> int | None:
    """The status of HTTP that an error, or its cause, holds in one of the ways of the libraries; None without one."""
    while error is not None:
        response = getattr(error, "response", None)
        facts = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        places = (getattr(error, "code", None), getattr(error, "status", None), getattr(response, "status_code", None))
        for status in (*places, facts.get("HTTPStatusCode")):
            if isinstance(status, int) and 400 <= status < 600:
                return status
        if isinstance(error, FileNotFoundError | PermissionError):
            return 404 if isinstance(error, FileNotFoundError) else 403
        error = error.__cause__
    return None
