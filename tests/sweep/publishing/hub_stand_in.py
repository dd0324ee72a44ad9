"""A local stand-in of the hub's API: repositories are made, and files are committed to them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_standin"


@dataclass
class Hub:
    """What it holds.

    Attributes:
        repositories: whether each is private, by its name.
        files: contents by path, of all repositories.
        refuses: whether it answers every upload with an error.
    """

    endpoint: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: bool = False


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does to what `HfApi` asks when it makes a repository and uploads a folder."""

    hub: Hub

    def do_GET(self) -> None:
        """Whether a repository is there."""
        name = self.path.removeprefix("/api/models/")
        if name in self.hub.repositories:
            self.answer(200, {"id": name, "_id": "1", "sha": "0" * 40, "private": True, "siblings": [], "tags": []})
        else:
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        """Make a repository, say how files are uploaded, take a commit."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.hub.refuses:
            self.answer(403, {"error": "Storage quota exceeded"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines() if line])

    def create(self, asked: dict[str, Any]) -> None:
        """A repository in the name of its organization."""
        name = f"{asked['organization']}/{asked['name']}"
        self.hub.repositories[name] = asked.get("private", asked.get("visibility") == "private")
        self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Files in base64."""
        for line in lines:
            if line["key"] == "file":
                self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.hub.endpoint}/{next(iter(self.hub.repositories))}/commit/{'1' * 40}"
        self.answer(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url, "hookOutput": ""})

    def answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def stand_in() -> Iterator[Hub]:
    """A hub on a free port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
