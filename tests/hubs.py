"""A stand-in for the Hugging Face hub: the few addresses that an upload to a data set asks for, over HTTP."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote

TOKEN = "hf_test"
REPO = "me/night"


class Hub:
    """What the server holds. `busy`: the statuses of the answers to the next commits, in place of taking them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.modes: dict[str, str] = {}
        self.commits: list[list[str]] = []
        self.busy: list[int] = []
        self.endpoint = ""

    def act(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """The status and the JSON of an answer."""
        if path.startswith("/lfs/") and method == "PUT":
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.large[oid] = body
            return 200, {}
        if path == f"/datasets/{REPO}.git/info/lfs/objects/batch":
            return 200, {"transfer": "basic", "objects": [self._action(one) for one in json.loads(body)["objects"]]}
        if path == "/api/validate-yaml":  # of a card
            return 200, {"errors": [], "warnings": []}
        found = re.fullmatch(
            rf"/api/datasets/{REPO}/(auth-check/write|revision|preupload|commit|paths-info)(/main)?", path
        )
        if found is None:
            return 404, {"error": "Repository not found"}
        if found[1] == "preupload":
            names = [one["path"] for one in json.loads(body)["files"]]
            self.modes |= {name: "lfs" if name.endswith((".tar", ".parquet")) else "regular" for name in names}
            return 200, {
                "files": [{"path": name, "uploadMode": self.modes[name], "shouldIgnore": False} for name in names]
            }
        if found[1] == "commit":
            return self._commit(body)
        if found[1] == "paths-info":
            asked = parse_qs(body.decode()).get("paths", [])
            return 200, [self._info(name) for name in asked if name in self.files]
        return 200, {"id": REPO, "sha": "0" * 40, "private": False, "tags": [], "siblings": []}

    def _action(self, one: dict) -> dict:
        upload = {"actions": {"upload": {"href": f"{self.endpoint}/lfs/{one['oid']}"}}}
        return one | ({} if one["oid"] in self.large else upload)

    def _commit(self, body: bytes) -> tuple[int, object]:
        if self.busy:
            return self.busy.pop(0), {"error": "a commit has happened since"}
        names = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
            names += [value["path"]] if "path" in value else []
        self.commits.append(names)
        oid = f"{len(self.commits):040x}"
        return 200, {"success": True, "commitUrl": f"{self.endpoint}/datasets/{REPO}/commit/{oid}", "commitOid": oid}

    def _info(self, name: str) -> dict:
        data = self.files[name]
        info = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        }
        if self.modes[name] == "lfs":
            info["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return info


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub with one empty data set. HF_ENDPOINT is to be its `endpoint`, before huggingface_hub is imported."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            path = unquote(self.path.partition("?")[0])
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}" or path.startswith("/lfs/")
            status, answer = (
                hub.act(self.command, path, body) if known else (401, {"error": "Invalid username or password."})
            )
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def environment(hub: Hub) -> dict[str, str]:
    """What a command needs to reach it and nothing else."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
