"""A table once, shown as Markdown and on the terminal; the page shows it by its template."""

import dataclasses
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from drin_jax.evaluation.report import markdown_table, markdown_text


@dataclasses.dataclass(frozen=True)
class Cell:
    """One value as text. `best` of its column; `mark` is a sign that the table's notes explain."""

    text: str
    best: bool = False
    mark: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under a head. The first `text_columns` columns are words, the rest numbers.

    A row shorter than the head ends in a remark, which takes the columns that are left.
    """

    slug: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    text_columns: int = 1


def to_markdown(table: Table) -> str:
    """The table's title is left to the caller; notes stand below as a list."""

    def shown(cell: Cell) -> str:
        text = markdown_text(cell.text)
        return (f"**{text}**" if cell.best else text) + (f" {cell.mark}" if cell.mark else "")

    width = len(table.head)
    rows = [[*map(shown, row), *[""] * (width - len(row))] for row in table.rows]
    lines = markdown_table([*map(markdown_text, table.head)], rows, table.text_columns)
    notes = [f"* {markdown_text(note)}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def to_rich(table: Table) -> RichTable:
    """For a terminal; the notes are its caption."""
    notes = escape("\n".join(table.notes))
    shown = RichTable(
        title=escape(table.title),
        title_justify="left",
        caption=notes or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, name in enumerate(table.head):
        shown.add_column(
            escape(name), justify="left" if i < table.text_columns else "right", overflow="fold"
        )
    # Where some of a column's numbers bear a mark, the others keep its place.
    marked = {i for row in table.rows for i, cell in enumerate(row) if cell.mark}

    def text(i: int, cell: Cell) -> str:
        value = f"[bold]{escape(cell.text)}[/bold]" if cell.best else escape(cell.text)
        return f"{value} {cell.mark or ' '}" if i in marked else value

    for row in table.rows:
        cells = [text(i, cell) for i, cell in enumerate(row)]
        if len(cells) < len(table.head):  # a remark would make its column as wide as itself
            cells = [": ".join(cells)]
        shown.add_row(*cells, *[""] * (len(table.head) - len(cells)))
    return shown
