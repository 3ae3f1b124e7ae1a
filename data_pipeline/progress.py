"""The progress bar of long work: on a terminal a bar, elsewhere a line at the start and the end."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

SPEAKS = True  # whether this process shows progress: of several, process 0 alone


class Progress:
    """A bar with rate, time left and a note, on stderr of process 0. `done` steps are behind
    it already."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "steps"):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._start = done
        self._note = ""
        self._live = sys.stderr.isatty() and SPEAKS

    def __enter__(self) -> "Progress":
        self._began = time.perf_counter()
        if self._live:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}  {task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.total, completed=self.done, rate="", note=""
            )
        return self

    def advance(self, steps: int = 1) -> None:
        """`steps` more are done."""
        self.done += steps
        if self._live:
            self._bar.update(self._task, completed=self.done, rate=self._rate())

    def note(self, text: str) -> None:
        """Show `text` at the end of the bar."""
        self._note = text
        if self._live:
            self._bar.update(self._task, note=text)

    def _rate(self) -> str:
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return f"{(self.done - self._start) / seconds:.1f} {self.unit}/s"

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()
        if not SPEAKS:
            return
        seconds = time.perf_counter() - self._began
        print(
            f"{self.title}: {self.done}/{self.total} {self.unit} in {seconds:.1f} s, "
            f"{self._rate()}  {self._note}".rstrip(),
            file=sys.stderr,
        )
