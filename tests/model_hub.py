"""A stand-in for the Hugging Face hub as it gives models: names and sizes, files with ranges, and its ways to refuse.

A large file is behind a redirect, as on the hub. `Hub.breaks` lets a connection end early.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

TOKEN = "hf_right"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server holds, and how it behaves.

    `breaks`: {file name: [bytes after which a connection that sends the file ends, one for each answer]}. `busy`: the
    statuses of the next answers. `gated` and `private`: names of repositories that need the token. `whole`: ranges are
    ignored. `hold`: while it is set, a large file stops after half of what is asked for.
    """

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {"main": COMMIT}
        self.breaks: dict[str, list[int]] = {}
        self.busy: list[int] = []
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self.whole = False
        self.hold = threading.Event()
        self.asked: list[tuple[str, str, str]] = []  # method, path, range
        self.endpoint = ""
        self.store = ""  # another host, as far as clients know

    def add(self, name: str, folder: Path | Mapping[str, bytes]) -> None:
        """Hold the files of a folder as a model."""
        files = (
            {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            if isinstance(folder, Path)
            else dict(folder)
        )
        self.models[name] = files

    def contents(self) -> list[tuple[str, str]]:
        """The large files whose content was asked for, each with its range, in order."""
        names = {
            hashlib.sha256(data).hexdigest(): name for files in self.models.values() for name, data in files.items()
        }
        return [
            (names[path.removeprefix("/cdn/")], asked)
            for method, path, asked in self.asked
            if method == "GET" and path.startswith("/cdn/")
        ]

    def files(self) -> set[str]:
        """The files of repositories, large and small, that were asked for."""
        return {path.partition("/resolve/")[2].partition("/")[2] for _, path, _ in self.asked if "/resolve/" in path}


def is_large(name: str) -> bool:
    """Whether the hub keeps the file outside of git."""
    return name.endswith((".safetensors", ".bin", ".model"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def _answer(self) -> None:
        path, _, query = unquote(self.path).partition("?")
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.busy and not path.startswith("/api"):
            return self._send(self.hub.busy.pop(0), b"busy")
        if path.startswith("/cdn/"):
            assert "Authorization" not in self.headers, "a token is for the hub alone"
            return self._content(path.removeprefix("/cdn/"))
        if path == "/api/models":
            return self._list({key: values[0] for key, values in parse_qs(query).items()})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
            return self._json({"branches": [{"name": name} for name in self.hub.commits], "tags": [], "converts": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            return self._info(found[1], found[2] or "main")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        return self._send(404, b"")

    do_GET = do_HEAD = _answer

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _commit(self, repo: str, revision: str) -> str | None:
        """The commit, if this user may see it; otherwise the refusal is sent."""
        given = self.headers.get("Authorization")
        if given is not None and not self._known():
            message = "Invalid credentials in Authorization header"
            self._send(401, b"", {"X-Error-Message": message})
            return None
        if repo not in self.hub.models or (repo in self.hub.private and not self._known()):
            self._send(404 if given else 401, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.hub.commits.get(revision, revision if revision in self.hub.commits.values() else None)
        if commit is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _list(self, query: Mapping[str, str]) -> None:
        def fits(name: str) -> bool:
            return name.partition("/")[0] == query["author"] if "author" in query else query["search"] in name

        self._json([{"id": name} for name in self.hub.models if fits(name) and name not in self.hub.private])

    def _info(self, repo: str, revision: str) -> None:
        commit = self._commit(repo, revision)
        if commit is not None:
            files = self.hub.models[repo]
            siblings = [_sibling(name, data) for name, data in files.items()]
            self._json({"id": repo, "sha": commit, "gated": repo in self.hub.gated, "siblings": siblings})

    def _file(self, repo: str, revision: str, name: str) -> None:
        commit = self._commit(repo, revision)
        if commit is None:
            return None
        if repo in self.hub.gated and not self._known():
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        data = self.hub.models[repo].get(name)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        facts = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, data)}"'}
        if not is_large(name):
            return self._send(200, data, facts)
        facts |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": facts.pop("ETag")}
        return self._send(302, b"", facts | {"Location": f"{self.hub.store}/cdn/{_etag(name, data)}"})

    def _content(self, sha256: str) -> None:
        held = ((name, data) for files in self.hub.models.values() for name, data in files.items())
        name, data = next((name, data) for name, data in held if hashlib.sha256(data).hexdigest() == sha256)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked and not self.hub.whole else 0
        body, breaks = data[begin:], self.hub.breaks.get(name)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha256}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        if breaks:
            self.wfile.write(body[: breaks.pop(0)])
            self.close_connection = True
            self.connection.shutdown(2)
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        while self.hub.hold.is_set():
            time.sleep(0.02)
        with suppress(OSError):  # the client may have been killed meanwhile
            self.wfile.write(body[half:])

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _etag(name: str, data: bytes) -> str:
    return (
        hashlib.sha256(data).hexdigest()
        if is_large(name)
        else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    )


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
    if is_large(name):
        facts["lfs"] = {"sha256": _etag(name, data), "size": len(data), "pointerSize": 134}
    return facts


@contextmanager
def model_hub() -> Iterator[Hub]:
    """A hub without models."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint, hub.store = (f"http://{host}:{server.server_address[1]}" for host in ("127.0.0.1", "localhost"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.hold.clear()
        server.shutdown()
        server.server_close()


def reached(hub: Hub, cache: Path) -> dict[str, str]:
    """The environment of a command that reaches this hub and nothing else, with a cache of its own."""
    return {
        "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "", "HF_TOKEN_PATH": str(cache / "no-token"),
    }  # fmt: skip


def reach(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process reach the hub: huggingface_hub reads the environment when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
