"""A hub on this machine: what huggingface_hub asks of one to read and write repositories, files of tensors through LFS; and
files at plain addresses, some of which end early.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


class Hub:
    """Repositories as name -> file -> bytes, files below ``/files/``, and what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.short: set[str] = set()
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.address = ""

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        """The operations of one commit."""
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The hub, until the end of the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def answer(self, status: int, body: bytes | Any = b"", more: int = 0, **headers: str) -> None:
        """``more`` bytes are promised than there are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) + more))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.close_connection = self.close_connection or more > 0

    def read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.path.startswith("/files/"):
            name = self.path.removeprefix("/files/").partition("?")[0]
            known = name in self.hub.files
            self.answer(200 if known else 404, self.hub.files.get(name, b""), more=100 if name in self.hub.short else 0)
            return
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?", self.path)
        if found is None:
            self.about()
            return
        name, _, file, _ = found.groups()
        if name not in self.hub.repositories:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif file not in self.hub.repositories[name]:
            self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            data = self.hub.repositories[name][file]
            self.answer(200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def about(self) -> None:
        """What the API says of a repository."""
        found = re.match(r"/api/models/([^/?]+/[^/?]+)", self.path)
        if found is None or found[1] not in self.hub.repositories:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        files = [{"rfilename": file} for file in self.hub.repositories[found[1]]]
        self.answer(200, {"id": found[1], "modelId": found[1], "sha": COMMIT, "siblings": files, "private": False, "tags": []})

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.read()
        if self.path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said.get('organization') or 'someone'}/{said['name']}"
            known = name in self.hub.repositories
            self.hub.repositories.setdefault(name, {})
            self.hub.private.setdefault(name, bool(said.get("private")) or said.get("visibility") == "private")
            self.answer(409 if known else 200, {"url": f"{self.hub.address}/{name}"})
        elif self.path.endswith("/preupload/main"):
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.hub.address}/blobs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.partition("?")[0]):
            self.hub.commit(found[1], [json.loads(line) for line in body.splitlines() if line])
            self.answer(200, {"commitUrl": f"{self.hub.address}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        elif self.path.startswith("/api/validate-yaml"):
            self.answer(200, {"errors": [], "warnings": []})
        else:
            self.answer(404, {"error": f"unknown: {self.path}"})

    def do_PUT(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        data = self.read()
        if hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]:
            self.hub.blobs[self.path.rpartition("/")[2]] = data
            self.answer(200)
        else:
            self.answer(400)
