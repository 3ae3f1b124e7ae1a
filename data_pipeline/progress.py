"""The progress bar of long work: on a terminal a bar, elsewhere a line at the start and the end."""

import sys
import time

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

SPEAKS = True  # whether this process shows progress: of several, process 0 alone
_REDRAW = 0.1  # seconds between two updates of a bar, so that `advance` costs nothing


def say(message: str) -> None:
    """A line of what is going on, on stderr of process 0."""
    if SPEAKS:
        print(message, file=sys.stderr, flush=True)


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
        self._live = self._loud and sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        self._began = self._drawn = time.perf_counter()
        if self._live:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn() if self.unit == "B" else MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, rate="", note=""
            )
        elif self._loud:
            print(f"{self.title}: {self._amount}", file=sys.stderr, flush=True)
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
            print(f"{told}, {self._rate()}  {self._note}".rstrip(), file=sys.stderr)
