"""A service that answers on a port of this machine, in a thread of this process."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import uvicorn

from drin_jax.linking.linker import Linker
from drin_jax.linking.server import serving
from drin_jax.linking.server.bounds import Bounds
from drin_jax.linking.server.service import Service

TOKEN = "open-sesame"
WRITER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


class Running:
    """A service on `url`; `http` asks it."""

    def __init__(self, service: Service, server: uvicorn.Server, place: tuple[str, int]):
        self.service, self.server, self.place = service, server, place
        self.url = f"http://{place[0]}:{place[1]}"
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def raw(self, data: bytes) -> tuple[int, bytes]:
        """The answer to these bytes."""
        with socket.create_connection(self.place, timeout=60) as connection:
            connection.sendall(data)
            with http.client.HTTPResponse(connection) as answer:
                answer.begin()
                return answer.status, answer.read()

    def at_once(self, bodies: Sequence[Any]) -> list[tuple[int, Any]]:
        """Status and JSON of a POST to /link with each of these, on connections of their own."""

        async def all_of_them() -> list[tuple[int, Any]]:
            return await asyncio.gather(*(self._link(body) for body in bodies))

        return asyncio.run(all_of_them())

    async def _link(self, body: Any) -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection(*self.place)
        writer.write(request("/link", json.dumps(body).encode(), "Connection: close"))
        answer = await reader.read()
        writer.close()
        return parsed(answer)

    def stop(self) -> None:
        """As SIGTERM does."""
        self.server.handle_exit(15, None)

    def alive(self) -> bool:
        """Whether a mention is linked."""
        answer = self.http.post("/link", json={"text": "Jordan", "mention": "Jordan"})
        return answer.status_code == 200


def request(path: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """The bytes of a request with JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def parsed(answer: bytes) -> tuple[int, Any]:
    """The status and the JSON of an answer's bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@contextlib.contextmanager
def running(linker: Linker, token: str = TOKEN, **bounds: Any) -> Iterator[Running]:
    """A service, until the end of the with block."""
    service = Service(linker, Bounds(**bounds), token)
    taken, ready = serving.bound("127.0.0.1", 0), threading.Event()
    place = taken.getsockname()
    server = serving.server_of(service, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        assert ready.wait(60)
        one = Running(service, server, place)
        with one.http:
            yield one
    finally:
        server.handle_exit(15, None)
        thread.join(60)
        assert not thread.is_alive()
