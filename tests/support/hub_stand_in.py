"""A stand-in of the Hugging Face hub on the loopback that can break, stall or spoil transfers."""

import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "ab" * 20


class StandIn(ThreadingHTTPServer):
    """Serves repositories: (kind, id) -> files. `*.npy` and `*.safetensors` are LFS files."""

    daemon_threads = True

    def __init__(self, repositories: dict[tuple[str, str], dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.refused: dict[str, tuple[int, str]] = {}  # id -> status, error code
        self.cuts: dict[str, int] = {}  # file -> bytes after which the next transfer breaks off
        self.silent: dict[str, int] = {}  # file -> bytes after which the next transfer stalls
        self.damaged: set[str] = set()
        self.short: set[str] = set()
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self, ending: str) -> list[str | None]:
        """What was asked of this file, transfer by transfer."""
        return [r for method, path, r in self.requests if method == "GET" and path.endswith(ending)]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/cdn/(datasets|models)/(\w+/\w+)/(.*)", path):
            kind, name, file = match.groups()
            return self._content(file, self.server.repositories[kind, name][file])
        if match := re.fullmatch(r"/api/(datasets|models)/(\w+/\w+)(/tree)?(/.*)?", path):
            kind, name, tree, _ = match.groups()
        elif match := re.fullmatch(r"/(datasets/)?(\w+/\w+)/resolve/\w+/(.*)", path):
            kind, name, file = match[1] or "models", match[2], match[3]
            kind, tree = kind.strip("/"), None
        else:
            return self._answer(404, b"")
        if name in self.server.refused or (kind, name) not in self.server.repositories:
            status, code = self.server.refused.get(name, (401, ""))
            return self._answer(status, b"{}", {"X-Error-Code": code} if code else {})
        if path.endswith("/nonsense"):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = self.server.repositories[kind, name]
        if tree:
            return self._json([self._entry(path, content) for path, content in files.items()])
        if path.startswith("/api/"):
            return self._json({"id": name, "sha": COMMIT})
        if file not in files:
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        if not file.endswith((".npy", ".safetensors")):
            return self._content(file, files[file])
        linked = {
            "X-Linked-Etag": f'"{hashlib.sha256(files[file]).hexdigest()}"',
            "X-Linked-Size": str(len(files[file])),
            "X-Repo-Commit": COMMIT,
            # Another host, as the real one's store of large files is.
            "Location": f"{self.server.address}/cdn/{kind}/{name}/{file}".replace(
                "127.0.0.1", "localhost"
            ),
        }
        return self._answer(302, b"", linked)

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, Any]:
        size = len(content)
        entry = {"type": "file", "path": path, "size": size, "oid": _git_sum(content)}
        if path.endswith((".npy", ".safetensors")):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
        return entry

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode())

    def _content(self, file: str, content: bytes) -> None:
        headers = {"ETag": f'"{_git_sum(content)}"', "X-Repo-Commit": COMMIT}
        if file in self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if file in self.server.short:
            content = content[:-7]
        status, whole = 200, len(content)
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            status, content = 206, content[begin:]
            headers["Content-Range"] = f"bytes {begin}-{whole - 1}/{whole}"
        stop = None
        if self.command == "GET":
            stalls = file in self.server.silent
            stop = (self.server.silent if stalls else self.server.cuts).pop(file, None)
        if stop is None:
            return self._answer(status, content, headers)
        self._answer(status, content, headers, send=stop)
        if stalls:
            time.sleep(20)  # the client is killed meanwhile
        self.close_connection = True

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        send: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:send])
            self.wfile.flush()


def _git_sum(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
