"""A table once: as Markdown and on the terminal here, on a page by its template."""

import dataclasses
import html
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from data_pipeline import output

UNLIMITED = 10_000  # columns


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
        """The table on stdout, its notes below. Of numbers that have no room beside each other the
        last but one are left out, with a word; none is cut."""
        console = output.console()
        shown = [*range(len(self.head))]
        table = self._table(shown)
        free = console.options.update(width=UNLIMITED)  # else it says no more than the width
        while console.measure(table, options=free).minimum > console.width and (
            len(shown) > self.words + 3
        ):
            del shown[-2]
            table = self._table(shown)
        console.print(table)
        left_out = [name for i, name in enumerate(self.head) if i not in shown]
        more = [f"left out for want of room: {', '.join(left_out)}"] if left_out else []
        for note in [*more, *self.notes]:
            console.print(Text(f"  {note}"))

    def _table(self, shown: Sequence[int]) -> RichTable:
        """Of the columns with these numbers."""
        heads = [(self.head[i], i >= self.words) for i in shown]
        table = blank(heads, title=Text(self.title), title_justify="left")
        previous: Sequence[str] = ()
        for row in self.rows:
            same = self.grouped > 0 and row[: self.grouped] == previous
            if previous and not same:
                table.add_section()
            previous = row[: self.grouped]
            if len(row) < len(self.head):  # a remark would make its column as wide as itself
                table.add_row(Text(": ".join(row)))
                continue
            cells = [Text(row[i], "bold" if isinstance(row[i], Best) else "") for i in shown]
            if same:
                cells[: self.grouped] = [Text("")] * self.grouped
            table.add_row(*cells)
        return table


def blank(heads: Iterable[tuple[str, bool]], **options: Any) -> RichTable:
    """A terminal's table without rows: the head of each column, and whether it is of numbers."""
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, **options)
    for head, number in heads:
        side: Any = "right" if number else "left"
        table.add_column(Text(head), justify=side, overflow="fold", no_wrap=number)
    return table


def markdown_text(text: object) -> str:
    """Text that Markdown and the HTML inside it leave as it is, on one line."""
    out = " ".join(html.escape(str(text), quote=False).split())
    for sign in "\\|*_`[]":
        out = out.replace(sign, "\\" + sign)
    return out
