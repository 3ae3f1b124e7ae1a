"""The processes of a run find each other, stay in touch, and end together.

Process 0 listens; the others connect to it and stay connected, so that the end of any process is
noticed at once. This lies beside JAX's own coordination, which aborts a process at length where one
is missing or lost, and so everything is looked at here before JAX starts: who is there, and whether
they mean the same run.
"""

import dataclasses
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from data_pipeline.schema import UserError
from drin_jax.parallel.wire import Wire, split_address

END = "the end"  # the gathering after which processes may leave
RETRY = 0.1  # seconds between attempts to connect
PATIENCE = 10.0  # seconds of waiting after which it is told
REMIND = 600.0  # seconds after which it is told again


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this is. `coordinator` is "HOST:PORT" of process 0, `timeout` the
    seconds in which all have to be there."""

    coordinator: str
    processes: int
    process: int
    timeout: float = 300.0


class Peers:
    """The other processes, as a `Member` or as process 0, a `hub.Hub`, sees them."""

    def __init__(self, place: Place):
        self.place = place
        self.host = socket.gethostname()
        # Where JAX's own coordination listens, known to all, and to which address of process 0's
        # machine it is bound ("": all).
        self.jax_address = self.bind_address = ""
        self._changed = threading.Condition(threading.RLock())
        self._answers: list[Any] | None = None
        self._leaving = threading.Lock()
        self._over = False

    def gather(self, name: str, value: Any = None) -> list[Any]:
        """Wait until every process is here with the same `name`.

        Args:
            name: what is waited for, as users read it.
            value: of this process, anything JSON holds.
        Returns:
            The values of all processes, in their order.
        """
        next_word = time.monotonic() + PATIENCE
        with self._changed:
            self._answers = None
            self._post(name, value)
            while self._answers is None:
                self._changed.wait(1.0)
                if self._answers is None and time.monotonic() > next_word:
                    next_word += REMIND
                    say(f"process {self.place.process}: waiting for {self._whom()} ({name})")
            return self._answers

    def leave(self, line: str, code: int) -> None:
        """Tell the others why this process ends now, before the end of the run."""
        # Where this is only the echo of another's death, that is noticed now and ends everything.
        time.sleep(0.3)
        if self._over or not self._leaving.acquire(blocking=False):
            return
        self._tell(f"process {self.place.process} on {self.host}: {line}", code)

    def close(self) -> None:
        """Part after `gather(END)`."""
        raise NotImplementedError

    def _post(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def _tell(self, line: str, code: int) -> None:
        raise NotImplementedError

    def _whom(self) -> str:
        return "the other processes"

    def _end_now(self, line: str, code: int) -> None:
        """End this process, whatever its main thread does, unless it is ending already."""
        if self._leaving.acquire(blocking=False):
            exit_now(line, code)


class Member(Peers):
    """A process other than 0; `card` is what all have to agree on."""

    def __init__(self, place: Place, card: dict[str, Any]):
        super().__init__(place)
        self._wire = Wire(self._connect())
        hello = {"process": place.process, "processes": place.processes, "host": self.host}
        self._wire.send(**hello, pid=os.getpid(), card=card)
        answer = self._wire.receive() or {"line": self._lost()}
        if "welcome" not in answer:
            raise UserError(answer["line"])
        self.jax_address = answer["welcome"]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._wire.close()

    def _connect(self) -> socket.socket:
        place = self.place
        address = split_address(place.coordinator)
        deadline = time.monotonic() + place.timeout
        next_word = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(address, timeout=max(1.0, place.timeout))
            except OSError as error:  # also a name that is not known yet
                if (now := time.monotonic()) > deadline:
                    raise UserError(
                        f"process {place.process} finds no process 0 at {place.coordinator} in "
                        f"{place.timeout:g} s ({error.strerror or error}); start process 0 there "
                        "or correct --coordinator"
                    ) from None
            if now > next_word:
                next_word = now + REMIND
                say(f"process {place.process}: waiting for process 0 at {place.coordinator}")
            time.sleep(RETRY)

    def _post(self, name: str, value: Any) -> None:
        self._wire.send(name=name, value=value)
        self._asked = name

    def _listen(self) -> None:
        while message := self._wire.receive():
            if "line" in message:
                self._end_now(message["line"], message["code"])
                return
            with self._changed:
                self._over = self._asked == END
                self._answers = message["values"]
                self._changed.notify_all()
        if not self._over:
            self._end_now(self._lost(), 1)

    def _lost(self) -> str:
        return (
            f"process 0 at {self.place.coordinator} was killed or cannot be reached any more; "
            "start all again to go on"
        )

    def _tell(self, line: str, code: int) -> None:
        self._wire.send(line=line, code=code)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def exit_now(line: str, code: int) -> NoReturn:
    # The main thread may be anywhere, even inside a print: nothing of it is waited for.
    word = "stopped" if code > 128 else "error"
    os.write(2, f"{word}: {' '.join(line.split())}\n".encode())
    os._exit(code)
