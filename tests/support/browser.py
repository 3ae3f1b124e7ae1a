"""The page of the linking service in a real browser, before a stand-in of the service.

The stand-in answers as the service does, from a knowledge base of six entities, and keeps every
request. Needs playwright and a Chromium of the system; `missing` says what is not there.
"""

import base64
import contextlib
import importlib.util
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.odd_pictures import jpeg, photo
from tests.support.paths import ROOT

PAGE = ROOT / "drin_jax" / "linking" / "server" / "page"
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
TOKEN = "a secret of the tests"
EXAMPLES = [
    {
        "title": "A player or an actor?",
        "text": "Jordan scored forty points in Chicago before the crowd stood up.",
        "span": [0, 6],
    }
]
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked=1'>"
PLACES = {"Q41421": 0.931, "Q1": 0.041, "Q810": 0.013, "Q99": 0.004, "Q5": 0.002}
EDGES = (  # of the first candidate; of the others a part
    (0.31, 0.22, -0.12, 0.18),
    (0.55, 0.41, 0.08, 0.52),
    (0.93, 0.47, 0.21, 0.88),
)
REASONS = {
    "names": "full name in the sentence equals this name",
    "words": "3 words of the description are in the text: basketball, points, Chicago",
    "years": "born 27 years before the year of the text",
    "votes": "this form meant it 41 times of 44 in training",
}
GAINS = {"names": 0.83, "votes": 0.51, "words": 0.22, "years": -0.11}


def missing() -> str:
    """What to install for a browser; empty: it is there."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[dev]'"
    return "" if _chromium() else "no Chromium is installed: apt-get install chromium"


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, as playwright's `Browser`."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_chromium(), args=arguments)
        try:
            yield started
        finally:
            started.close()


class Request(NamedTuple):
    """One that the page made; `body` is its JSON, None without."""

    method: str
    path: str
    body: Any
    token: str


class Service(ThreadingHTTPServer):
    """Answers the page. `errors` holds answers that come instead of those of a path, in order:
    status, headers, body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.entities = _entities()
        self.pictures = {id: jpeg(photo(120, 120, i)) for i, id in enumerate(("Q41421", "Q1"))}
        self.requests: list[Request] = []
        self.errors: dict[str, list[tuple[int, dict[str, str], dict[str, Any]]]] = {}
        self.writable = True
        self.graph = self.evidence = True  # whether the model has them
        self.refusals = 0  # answers that a test expects to be an error

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def made(self, method: str, path: str) -> list[Request]:
        """The requests of this kind, in order."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def kb(self) -> dict[str, Any]:
        n = len(self.entities)
        return {
            "name": "people",
            "path": "kb",
            "entities": n,
            "generation": 1,
            "version": f"{n}-4c1d09e2",
            "writable": self.writable,
            "examples": EXAMPLES,
        }

    def linked(self, text: str, span: list[int], k: int) -> dict[str, Any]:
        """ "Jordan" is linked; an entity of exactly the mention's name wins; "Nobody" is NIL."""
        mention = text[span[0] : span[1]]
        named = [id for id, one in self.entities.items() if one["name"] == mention]
        nil = mention == "Nobody"
        order = [*named, *(id for id in PLACES if id in self.entities and id not in named)][:k]
        found = list(PLACES.values())[: len(order)]
        chances = [p / 20 for p in found] if nil else found
        return {
            "text": text,
            "mention": mention,
            "span": span,
            "is_nil": nil,
            "nil_probability": 1 - sum(chances),
            "model": "relational-sample",
            "kb": self.kb()["version"],
            "candidates": [
                self._candidate(id, rank, p)
                for rank, (id, p) in enumerate(zip(order, chances, strict=True), 1)
            ],
            "explanation": {
                "layers": 2 if self.graph else 0,
                "relations": ["tt", "tv", "vt", "vv"],
                "gains": GAINS if self.evidence else {},
                "candidates": [self._reasons(id, rank) for rank, id in enumerate(order, 1)],
            },
        }

    def _candidate(self, id: str, rank: int, probability: float) -> dict[str, Any]:
        one = self.entities[id]
        return {
            "id": id,
            "name": one["name"],
            "description": one["description"],
            "rank": rank,
            "probability": probability,
            "score": 3.0 - rank,
            "has_image": id in self.pictures,
        }

    def _reasons(self, id: str, rank: int) -> dict[str, Any]:
        part = 1 / rank
        seen = (True, id in self.pictures, True, id in self.pictures)
        edges = [
            [w * part if there else None for w, there in zip(layer, seen, strict=True)]
            for layer in EDGES
        ]
        return {
            "id": id,
            "edges": edges if self.graph else None,
            "reasons": dict(list(REASONS.items())[: 6 - rank]) if self.evidence else {},
            "contributions": {
                name: gain * (1.5 * part - 0.5) for name, gain in GAINS.items() if self.evidence
            },
        }


def _entities() -> dict[str, dict[str, Any]]:
    rows = (
        ("Q41421", "Michael Jordan", "American basketball player and businessman (born 1963)"),
        ("Q1", "Michael B. Jordan", "American actor and producer (born 1987)"),
        ("Q810", "Jordan (country)", "country in the Middle East"),
        ("Q99", "Jordan River", "river that flows through the Sea of Galilee to the Dead Sea"),
        ("Q5", HOSTILE, HOSTILE.replace(" ", "_")),
        ("Q7", "Chicago", "city in Illinois, United States"),
    )
    return {
        id: {"id": id, "name": name, "aliases": [], "description": told} for id, name, told in rows
    }


@contextlib.contextmanager
def service() -> Iterator[Service]:
    """A running stand-in."""
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server.requests.append(Request(self.command, url.path, body, token))
        if waiting := self.server.errors.get(url.path):
            status, headers, answer = waiting.pop(0)
            return self._json(answer, status, headers)
        if self.command == "GET" and url.path in STATIC:
            name, kind = STATIC[url.path]
            return self._send((PAGE / name).read_bytes(), kind)
        if self.command == "GET":
            return self._read(url.path, parse_qs(url.query))
        if url.path in ("/link", "/annotate"):
            return self._json(getattr(self, url.path.strip("/"))(body))
        if token != TOKEN:
            return self._json({"error": "the token is wrong"}, 401)
        return self._write(url.path, body)

    def _read(self, path: str, query: dict[str, list[str]]) -> None:
        entities = self.server.entities
        if path == "/kb":
            return self._json(self.server.kb())
        if path == "/entities":
            name = query["name"][0].lower()
            hits = [one for one in entities.values() if name in one["name"].lower()]
            pictures = self.server.pictures
            found = [{**one, "score": 1.0, "has_image": one["id"] in pictures} for one in hits]
            return self._json({"entities": found})
        if match := re.fullmatch("/entities/([^/]+)(/image)?", path):
            id = unquote(match[1])
            if match[2] and id in self.server.pictures:
                return self._send(self.server.pictures[id], "image/jpeg")
            if not match[2] and id in entities:
                return self._json({**entities[id], "has_image": id in self.server.pictures})
        return self._json({"error": f"nothing is at {path}"}, 404)

    def link(self, asked: Any) -> dict[str, Any]:
        return self.server.linked(asked["text"], asked["span"], asked["k"])

    def annotate(self, asked: Any) -> dict[str, Any]:
        text = asked["text"]
        spans = [[m.start(), m.end()] for m in re.finditer("Jordan|Chicago|Nobody", text)]
        return {
            "text": text,
            "mentions": [self.server.linked(text, span, asked["k"]) for span in spans],
        }

    def _write(self, path: str, body: Any) -> None:
        if self.command == "DELETE":
            self.server.entities.pop(unquote(path.rsplit("/", 1)[1]))
            return self._json({"entities": 1, "kb": self.server.kb()["version"]})
        own = {"id": unquote(path.rsplit("/", 1)[1])}
        given = body["entities"] if self.command == "POST" else [own | body]
        for one in given:
            if self.command == "POST" and one["id"] in self.server.entities:
                return self._json({"error": f"entity {one['id']} is there already"}, 409)
            kept = {name: value for name, value in one.items() if name != "image"}
            self.server.entities[one["id"]] = kept
            if "image" in one:
                self.server.pictures[one["id"]] = base64.b64decode(one["image"])
        return self._json({"entities": len(given), "kb": self.server.kb()["version"]})

    def _json(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), "application/json", status, headers)

    def _send(
        self, body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        own["Content-Security-Policy"] = CSP
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def artefacts(tmp: Path) -> Path:
    """Where a failing test leaves its screenshot."""
    folder = Path(os.environ.get("DRIN_JAX_ARTEFACTS") or tmp)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
