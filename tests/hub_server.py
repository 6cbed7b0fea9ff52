"""A hub on loopback: as much of the Hugging Face Hub's protocol as huggingface_hub needs to download and to push.

No kept package does this. Files live in memory; faults are switched on per path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "1" * 40


class HubServer:
    """Repositories and plain files, and what the client asked for.

    Attributes:
        repos: Repository -> file name -> content.
        files: Path of a plain address -> content.
        redirects: Path -> where it leads.
        cut: Path -> bytes after which the connection is cut, once each.
        unmeasured: Path -> bytes after which the connection is closed, where no length was announced.
        statuses: Path as requested -> statuses and headers with which GET is answered first, once each.
        private: Repositories that need the token "secret".
        requests: Method, path and Range header of each request.
        tokens: Paths for which the client has sent a token.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the address."""
        self.repos: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut: dict[str, list[int]] = {}
        self.unmeasured: dict[str, int] = {}
        self.statuses: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str, str | None]] = []
        self.tokens: set[str] = set()
        self.uploads: dict[str, bytes] = {}

    def paths(self, method: str) -> list[str]:
        """Paths that were asked for with a method."""
        return [path for verb, path, _ in self.requests if verb == method]


def serve() -> HubServer:
    """A running server on a free port of 127.0.0.1, until the process ends."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return hub


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Tests read the requests from the server object."""

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_GET(self) -> None:
        self._get(body=True)

    def do_PUT(self) -> None:
        self._record()
        self.hub.uploads[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer(200, b"")

    def do_POST(self) -> None:
        self._record()
        path, body = urlsplit(self.path).path, self._body()
        if path == "/api/repos/create":
            name = json.loads(body)
            repo = f"{name.get('organization') or 'me'}/{name['name']}"
            self.hub.repos.setdefault(repo, {})
            self._json({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in files
            ]
            self._json({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**file, "actions": {"upload": {"href": f"{self.hub.url}/upload/{file['oid']}"}}}
                for file in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.decode().splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    self.hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    self.hub.repos[repo][value["path"]] = self.hub.uploads[value["oid"]]
            self._json(
                {"commitUrl": f"{self.hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None}
            )
        else:
            self._json({})  # yaml validation of the card

    def _get(self, *, body: bool) -> None:
        self._record()
        path = unquote(urlsplit(self.path).path)
        if body and self.hub.statuses.get(path):
            status, headers = self.hub.statuses[path].pop(0)
            self._answer(status, b"", **headers)
        elif path in self.hub.redirects:
            self._answer(302, b"", Location=self.hub.redirects[path])
        elif path in self.hub.files:
            self._content(path, self.hub.files[path], body=body)
        elif "/resolve/" in path:
            repo, _, rest = path.lstrip("/").partition("/resolve/")
            self._resolve(repo, *rest.split("/", 1), body=body)
        elif path.startswith("/api/models/"):
            repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            self._json(
                {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": f} for f in self.hub.repos.get(repo, {})]}
            )
        else:
            self._answer(404, b"")

    def _resolve(self, repo: str, revision: str, file: str, *, body: bool) -> None:
        if repo in self.hub.private and self.headers.get("Authorization") != "Bearer secret":
            self._answer(401, b"", **{"X-Error-Code": "RepoNotFound"})
        elif repo not in self.hub.repos:
            self._answer(404, b"", **{"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"", **{"X-Error-Code": "RevisionNotFound"})
        elif file not in self.hub.repos[repo]:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            path = f"/{repo}/{file}"
            content = self.hub.repos[repo][file]
            headers = {"X-Repo-Commit": COMMIT}
            if not file.endswith(".safetensors"):  # small files lie in git, under its hash
                headers["ETag"] = f'"{hashlib.sha1(b"blob %d" % len(content) + bytes(1) + content).hexdigest()}"'
            self._content(path, content, body=body, **headers)

    def _content(self, path: str, content: bytes, *, body: bool, **headers: str) -> None:
        """A file, from where the Range header says; cut short where the test wants it."""
        etag, wanted = f'"{hashlib.sha256(content).hexdigest()}"', self.headers.get("Range")
        etag = headers.get("ETag", etag)
        start = 0
        if wanted and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self._answer(416, b"")
        part = content[start:]
        self.send_response(206 if start else 200)
        headers |= {"ETag": etag, "Accept-Ranges": "bytes"}
        if path in self.hub.unmeasured:
            part = part[: self.hub.unmeasured[path]]
            headers["Connection"] = "close"
            self.close_connection = True
        else:
            headers["Content-Length"] = str(len(part))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cuts = self.hub.cut.get(path, [])
            if cuts:
                self.wfile.write(part[: cuts.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(part)
        return None

    def _record(self) -> None:
        self.hub.requests.append((self.command, urlsplit(self.path).path, self.headers.get("Range")))
        if self.headers.get("Authorization"):
            self.hub.tokens.add(urlsplit(self.path).path)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
