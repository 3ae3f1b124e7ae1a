"""What every request passes on its way in and out, whatever it asks for."""

import asyncio
import contextlib
import json
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drin_jax.linking.server.bounds import Bounds
from drin_jax.linking.server.metrics import Metrics

LOG = logging.getLogger(__name__)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LINGER = 2.0  # seconds in which a caller that still sends may read why it is refused
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Gate:
    """ASGI middleware: bounds bodies while they come in, adds headers, counts, and turns what
    nobody expected into a bare 500, with its traceback in the log."""

    def __init__(self, app: ASGIApp, bounds: Bounds, metrics: Metrics):
        self._app, self._bounds, self._metrics = app, bounds, metrics
        self.held = 0  # bytes of all bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routes see an id as it was sent: "a%2Fb" is one segment.
        scope["path"] = scope["raw_path"].decode("latin-1")
        began, passage = time.perf_counter(), _Passage(self, self._bounds, receive, send)
        try:
            passage.expect(_declared(scope))
            await self._app(scope, passage.receive, passage.send)
        except _Refused as refused:
            await passage.refuse(refused.status, refused.error)
        except Exception:
            LOG.exception("%s %s", scope["method"], _template(scope))
            await passage.refuse(500, "internal error")
        finally:
            self.held -= passage.size
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = time.perf_counter() - began
            self._metrics.answered(method, _template(scope), passage.status, seconds)


class _Refused(Exception):
    """A body that is not read to its end."""

    def __init__(self, status: int, error: str):
        super().__init__(error)
        self.status, self.error = status, error


class _Passage:
    """One request's way in, of `size` bytes, and out, with `status` (0: nothing was answered)."""

    def __init__(self, gate: Gate, bounds: Bounds, receive: Receive, send: Send):
        self._gate, self._bounds, self._receive, self._send = gate, bounds, receive, send
        self._deadline = asyncio.get_running_loop().time() + bounds.patience
        self._complete = False
        self.size = self.status = 0

    def expect(self, size: int) -> None:
        """Refuse a body of so many bytes, if they are too many."""
        if size > self._bounds.body:
            raise _Refused(413, f"the body has more than {self._bounds.body:,} bytes")

    async def receive(self) -> Message:
        """ASGI's."""
        if self._complete:  # what follows is the caller's end
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise _Refused(408, "the body did not arrive in time") from None
        more = len(message.get("body", b""))
        self.size += more
        self._gate.held += more
        self.expect(self.size)
        if self._gate.held > self._bounds.held:
            raise _Refused(429, "too many requests; come back later")
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """ASGI's."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await self._send(message)

    async def refuse(self, status: int, error: str) -> None:
        """Answer with an error, unless something was answered before."""
        if self.status:
            return
        body = json.dumps({"error": error}).encode()
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        headers.append((b"connection", b"close"))
        if status == 429:
            headers.append((b"retry-after", b"1"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        if not self._complete:
            await self._linger()
        await self.send({"type": "http.response.body"})

    async def _linger(self) -> None:
        """Throw away what still comes, for a while: where a connection is closed before all was
        read, its other end may lose the answer."""
        left = self._bounds.body
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                message = await self._receive()
                while message.get("more_body") and left > 0:
                    left -= len(message["body"])
                    message = await self._receive()


def _declared(scope: Scope) -> int:
    """Bytes that the body is said to have; h11 has seen that it is a number."""
    return int(dict(scope["headers"]).get(b"content-length", 0))


def _template(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "other")
