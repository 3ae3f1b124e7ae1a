"""The application behind a port, from the first request to the last."""

import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from data_pipeline.schema import UserError
from drin_jax.linking.server.app import create_app
from drin_jax.linking.server.service import Service

LAST = 30  # seconds in which requests have to finish once the service stops
HEAD = 1 << 16  # bytes of a request's line and headers
BACKLOG = 4096  # connections that may wait to be accepted; the system may have a lower bound


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the port, and takes no connection yet. UserError where it cannot be had."""
    if not 0 <= port <= 65_535:  # the C library takes the rest of a division
        raise UserError(f"port is {port}; it must be 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, UnicodeError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{host}:{port} cannot be listened on: {told}") from None
    return taken


def address(taken: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(service: Service, ready: Callable[[], None]) -> uvicorn.Server:
    """What answers, once it is run; `ready` is called when requests are taken."""
    config = uvicorn.Config(
        create_app(service),
        http="h11",
        h11_max_incomplete_event_size=HEAD,
        ws="none",
        log_config=None,
        log_level="error",  # anybody may send what is no HTTP, as often as they like
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=LAST,
    )
    return _Server(config, service, ready)


def serve(service: Service, taken: socket.socket, ready: Callable[[], None]) -> None:
    """Answer on this socket until SIGTERM or SIGINT; what was taken until then is finished."""
    _open_files()
    # It warns of every form that is none, which anybody may send, too.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    server = server_of(service, ready)
    # uvicorn hands each signal that it got to whoever handled it before, at its end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    try:
        server.run(sockets=[taken])
    except OSError as error:  # somebody else listens since
        raise UserError(f"{address(taken)} cannot be listened on: {error.strerror}") from None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[], None]):
        super().__init__(config)
        self._service, self._ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._service.stopping = True
        super().handle_exit(sig, frame)


def _open_files() -> None:
    """As many connections as the system allows this process."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
