"""Process 0 of a run: the others come to it, and it tells all what any of them says."""

import threading
import time
from typing import Any

from data_pipeline.schema import UserError
from drin_jax.parallel.peers import END, PATIENCE, REMIND, Peers, Place, exit_now, say
from drin_jax.parallel.wire import Wire, join_address, listen, split_address

FAREWELL = 3.0  # seconds that process 0 waits for the others to hear why it leaves


class Hub(Peers):
    """Process 0. `card` is what all have to agree on, name -> value.

    Raises:
        UserError: an address that is taken, processes that are missing, that call themselves by the
            same number, or that mean another run.
    """

    def __init__(self, place: Place, card: dict[str, Any]):
        super().__init__(place)
        self._card = card
        self._members: dict[int, tuple[Wire, str]] = {}  # number -> connection, who it is
        self._posted: dict[int, tuple[str, Any]] = {}
        self._refusal = ""
        self._started = False
        host, port = split_address(place.coordinator)
        try:
            self._listener, bound = listen(host, port)
        except OSError as error:
            raise UserError(
                f"process 0 cannot listen at {place.coordinator} ({error.strerror}): a process 0 "
                "of this run or another program is there; use another port"
            ) from None
        threading.Thread(target=self._accept, daemon=True).start()
        self._await_all()
        self.jax_address = join_address(host, _free_port(bound, port + 1))
        self.bind_address = join_address(bound, split_address(self.jax_address)[1]) if bound else ""
        for wire, _ in self._members.values():
            wire.send(welcome=self.jax_address)

    def close(self) -> None:
        self._listener.close()
        for wire, _ in self._members.values():
            wire.close()

    def _await_all(self) -> None:
        place = self.place
        deadline = time.monotonic() + place.timeout
        next_word = time.monotonic() + PATIENCE
        with self._changed:
            while not self._refusal and (missing := self._missing()):
                now = time.monotonic()
                if now > deadline:
                    self._refusal = (
                        f"{missing} of {place.processes} did not come to {place.coordinator} in "
                        f"{place.timeout:g} s; start the same command there with its own "
                        "--process, and see that it reaches that address"
                    )
                    break
                if now > next_word:
                    next_word = now + REMIND
                    say(f"process 0 at {place.coordinator}: waiting for {missing}")
                self._changed.wait(min(1.0, deadline - now + 0.01))
            self._started = True
        if self._refusal:
            self._leaving.acquire(blocking=False)
            self._tell(self._refusal, 1)
            raise UserError(self._refusal)

    def _missing(self) -> str:
        numbers = [str(i) for i in range(1, self.place.processes) if i not in self._members]
        if len(numbers) < 2:
            return f"process {numbers[0]}" if numbers else ""
        return f"processes {', '.join(numbers[:8])}" + (", …" if len(numbers) > 8 else "")

    def _whom(self) -> str:
        numbers = [str(i) for i in range(self.place.processes) if i not in self._posted]
        return f"process {', '.join(numbers[:8])}" + (", …" if len(numbers) > 8 else "")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(Wire(connection),), daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        """Everything that one process says, to its end."""
        number = self._admit(wire, wire.receive())
        if number is None:
            return
        said: dict[str, Any] = {}
        while message := wire.receive():
            said = message
            if "name" in message:
                self._take(number, message["name"], message["value"])
        with self._changed:
            who = self._members[number][1]
            if not self._started:  # left while the others gathered: it may come again
                del self._members[number]
                return
            over = self._over
        if over:
            return
        line = f"{who} was killed or cannot be reached any more; start all again to go on"
        self._end_all(said.get("line", line), said.get("code", 1))

    def _admit(self, wire: Wire, hello: dict[str, Any] | None) -> int | None:
        """The number of a process that may take part."""
        if hello is None or "card" not in hello:
            wire.close()  # some other program
            return None
        number, who = hello["process"], f"process {hello['process']} on {hello['host']}"
        with self._changed:
            if self._started:
                wire.send(line=f"the run at {self.place.coordinator} began without {who}", code=1)
                return None
            if hello["processes"] != self.place.processes:
                self._refusal = (
                    f"{who} was told --processes={hello['processes']}, process 0 on {self.host} "
                    f"{self.place.processes}; give all the same"
                )
            elif number in self._members or not 0 < number < self.place.processes:
                other = self._members[number][1] if number in self._members else "process 0"
                self._refusal = (
                    f"two processes call themselves {number}: {other} and {who}, pid "
                    f"{hello['pid']}; give each its own --process"
                )
            elif hello["card"] != self._card:
                self._refusal = (
                    f"{who} differs from process 0 on {self.host}: "
                    f"{_differences(self._card, hello['card'])}; start all with the same"
                )
            if self._refusal:
                wire.send(line=self._refusal, code=1)
            else:
                self._members[number] = wire, f"{who}, pid {hello['pid']},"
            self._changed.notify_all()
        return None if self._refusal else number

    def _post(self, name: str, value: Any) -> None:
        self._take(0, name, value)

    def _take(self, number: int, name: str, value: Any) -> None:
        """Note what one process has come with; with the last, all are answered."""
        with self._changed:
            self._posted[number] = name, value
            if len(self._posted) < self.place.processes:
                return
            posted, self._posted = self._posted, {}
            names = {i: posted[i][0] for i in sorted(posted)}
            for i, other in names.items():
                if other != names[0]:
                    line = f"process 0 is at {names[0]!r} and process {i} at {other!r}"
                    self._end_all(f"the processes are out of step: {line}", 1)
                    return
            values = [posted[i][1] for i in names]
            self._over = name == END  # before anyone can leave
            for wire, _ in self._members.values():
                wire.send(values=values)
            self._answers = values
            self._changed.notify_all()

    def _end_all(self, line: str, code: int) -> None:
        if self._leaving.acquire(blocking=False):
            self._tell(line, code)
            exit_now(line, code)

    def _tell(self, line: str, code: int) -> None:
        # Process 0 goes last: JAX aborts processes whose coordinator is gone.
        members = [wire for wire, _ in list(self._members.values())]
        for wire in members:
            wire.send(line=line, code=code)
        deadline = time.monotonic() + FAREWELL
        while any(wire.open for wire in members) and time.monotonic() < deadline:
            time.sleep(0.01)


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What differs between two cards, a few names of it."""
    differing = [
        f"{name} {ours.get(name)!r} -> {theirs.get(name)!r}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    return "; ".join(differing[:4]) + ("; …" if len(differing) > 4 else "")


def _free_port(host: str, wished: int) -> int:
    """A port of this machine that is free now: the one wished for if it is."""
    for port in (wished, 0):
        try:
            with listen(host, port)[0] as free:
                return int(free.getsockname()[1])
        except (OSError, OverflowError):
            continue
    raise UserError("no port is free on the machine of process 0")
