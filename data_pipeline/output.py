"""What a command shows: lines, tables and progress bars, in which nothing from data steers the
terminal."""

import contextlib
import io
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from absl import logging
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.segment import Segment

SPEAKS = True  # whether this process shows progress: of several, process 0 alone
PASSING = False  # whether it shows bars that go again, on a terminal, though nothing else
_REDRAW = 0.1  # seconds between two updates of a bar, so that `advance` costs nothing
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
CONTROLS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
WIDTH = 140  # columns where stdout is no terminal


def visible(text: str) -> str:
    """Text from data as it may be shown: control characters, which steer terminals, as symbols."""
    return text.translate(CONTROLS)


def shortened(text: str, most: int) -> str:
    """A text on one line of at most so many characters, with a mark where it is cut."""
    line = " ".join(text.split())
    return f"{line[: most - 1].rstrip()}…" if len(line) > most else line


class _Console(Console):
    """Shows control characters as symbols, and what looks like rich's markup as it is."""

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        for segment in super().render(*args, **options):
            text = segment.text if segment.control else visible(segment.text)
            yield Segment(text, segment.style, segment.control)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1 from here."""
        raise BrokenPipeError


def console(width: int = 0) -> Console:
    """Where tables and texts are printed: stdout, where it is no terminal `width` columns wide, or
    WIDTH."""
    plain = {"highlight": False, "markup": False, "emoji": False}
    return _Console(width=None if sys.stdout.isatty() else width or WIDTH, **plain)  # type: ignore[arg-type]


def say(message: str) -> None:
    """A line of what is going on, on stderr of process 0."""
    if SPEAKS:
        print(visible(message), file=sys.stderr, flush=True)


@contextlib.contextmanager
def silent(passing: bool = False) -> Iterator[None]:
    """Nothing is shown meanwhile, on either stream, but bars that go again where it is `passing`
    and stderr a terminal."""
    global SPEAKS, PASSING
    spoke, SPEAKS, PASSING = SPEAKS, False, passing and SPEAKS
    warned = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)  # what orbax warns of
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        SPEAKS, PASSING = spoke, False
        logging.set_verbosity(warned)


class Progress:
    """A bar with rate, time left and a note, on stderr of process 0.

    Args:
        title: what is being done.
        total: how many steps there are.
        done: so many of them are behind it already.
        unit: of the steps; "B" for bytes, which are told as MB and GB.
        amount: what the line at the start says there is to do; by default the total.
        loud: False shows nothing: for work of a few seconds.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        unit: str = "steps",
        *,
        amount: str = "",
        loud: bool = True,
    ):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._start = done
        self._amount = amount or self._told(total - done)
        self._note = ""
        self._loud = loud and SPEAKS
        self._live = loud and (SPEAKS or PASSING) and sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        self._began = self._drawn = time.perf_counter()
        if self._live:
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn() if self.unit == "B" else MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[note]}", markup=False),
                console=Console(stderr=True),
                transient=not self._loud,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                visible(self.title), total=self.total, completed=self.done, rate="", note=""
            )
        elif self._loud:
            print(visible(f"{self.title}: {self._amount}"), file=sys.stderr, flush=True)
        return self

    def advance(self, steps: int = 1) -> None:
        """`steps` more are done."""
        self.done += steps
        if self._live and time.perf_counter() - self._drawn > _REDRAW:
            self._draw()

    def note(self, text: str) -> None:
        """Show `text` at the end of the bar."""
        self._note = text
        if self._live:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.perf_counter()
        self._bar.update(self._task, completed=self.done, rate=self._rate(), note=self._note)

    def _told(self, steps: float, digits: str = ".0f") -> str:
        if self.unit != "B":
            return f"{steps:{digits}} {self.unit}"
        return f"{steps / 1e9:.1f} GB" if steps >= 1e9 else f"{steps / 1e6:.1f} MB"

    def _rate(self) -> str:
        per_second = (self.done - self._start) / max(time.perf_counter() - self._began, 1e-9)
        return f"{self._told(per_second, '.1f')}/s"

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._draw()
            self._bar.stop()
        if self._loud:
            seconds = time.perf_counter() - self._began
            done = self._told(self.done) if self.unit == "B" else str(self.done)
            told = f"{self.title}: {done}/{self._told(self.total)} in {seconds:.1f} s"
            print(visible(f"{told}, {self._rate()}  {self._note}".rstrip()), file=sys.stderr)
