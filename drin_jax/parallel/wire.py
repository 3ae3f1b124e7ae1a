"""Messages between the processes of a run: JSON objects, one a line, over TCP."""

import contextlib
import errno
import json
import socket
import threading
from typing import Any

LONGEST = 1 << 20  # bytes of a message
# A process that is killed closes its connections; of a machine that is lost nothing comes, and
# the kernel notices that after idle + interval * count seconds, however busy the process is.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Wire:
    """One connection, `open` until a `receive` has seen its end. Sending is safe from several
    threads, receiving is for one."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # not on every system; then its own, longer times hold
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.settimeout(None)
        self.open = True
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message. A lost connection is no error here: the receiving side tells it."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message; None once the connection is lost or what comes is no message."""
        try:
            message = json.loads(self._lines.readline(LONGEST))
        except (OSError, ValueError):
            message = None
        self.open = isinstance(message, dict)
        return message if self.open else None

    def close(self) -> None:
        """End the connection; a `receive` that waits returns None."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def split_address(address: str) -> tuple[str, int]:
    """("HOST", port) of "HOST:PORT" or "[IPV6]:PORT"; ValueError where it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The reverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket at this address, or at every one of this machine where it has not that one
    (a name that routers translate), and the host it is bound to; OSError where the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=1024), str(address[0])
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return socket.create_server(("", port), backlog=1024), ""
        raise
