"""A server of files on this machine, as the web has them."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Web(http.server.ThreadingHTTPServer):
    """Serves `files` by their paths. `answers`: the status, or the fault (cut, page), of each of the next requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.answers: list[int | str] = []
        self.asked: list[str] = []

    def address(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path.partition("?")[0].lstrip("/"))
        answer = self.server.answers.pop(0) if self.server.answers else 200 if content is not None else 404
        self.send_response(200 if isinstance(answer, str) else answer)
        content = content or b""
        self.send_header("Content-Type", "text/html; charset=utf-8" if answer == "page" else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1] if answer == "cut" else content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Web]:
    """A server, until the block ends."""
    with Web() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
