"""A table once: as Markdown and on the terminal here, on a page by its template."""

import dataclasses
import html
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text


class Best(str):
    """A cell that is the best of its column, shown bold."""

    bold = True


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under a head. The first `words` columns are words, the rest numbers.

    A row shorter than the head ends in a remark, which takes the columns that are left. Rows that
    begin with the same `grouped` cells belong together, and the terminal says those once.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    words: int = 1
    grouped: int = 0

    def markdown(self) -> str:
        """Lines of Markdown without the title; notes stand below as a list."""

        def line(cells: Iterable[str]) -> str:
            told = [f"**{markdown_text(c)}**" if isinstance(c, Best) else markdown_text(c)
                    for c in cells]  # fmt: skip
            return "| " + " | ".join(told + [""] * (len(self.head) - len(told))) + " |"

        rule = "|" + "---|" * self.words + "---:|" * (len(self.head) - self.words)
        notes = ["", *(f"* {markdown_text(note)}" for note in self.notes)] if self.notes else []
        return "\n".join([line(self.head), rule, *map(line, self.rows), *notes])

    def show(self) -> None:
        """The table on stdout, its notes below."""
        console = Console(width=None if Console().is_terminal else 140, highlight=False)
        shown = RichTable(
            title=Text(self.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for i, name in enumerate(self.head):
            side = "left" if i < self.words else "right"
            shown.add_column(Text(name), justify=side, overflow="fold")  # type: ignore[arg-type]
        previous: Sequence[str] = ()
        for row in self.rows:
            same = self.grouped > 0 and row[: self.grouped] == previous
            if previous and not same:
                shown.add_section()
            previous = row[: self.grouped]
            if len(row) < len(self.head):  # a remark would make its column as wide as itself
                row = [": ".join(row)]
            cells = [Text(cell, "bold" if isinstance(cell, Best) else "") for cell in row]
            if same:
                cells[: self.grouped] = [Text("")] * self.grouped
            shown.add_row(*cells)
        console.print(shown)
        for note in self.notes:
            console.print(Text(f"  {note}"))


def markdown_text(text: object) -> str:
    """Text that Markdown and the HTML inside it leave as it is, on one line."""
    out = " ".join(html.escape(str(text), quote=False).split())
    for sign in "\\|*_`[]":
        out = out.replace(sign, "\\" + sign)
    return out
