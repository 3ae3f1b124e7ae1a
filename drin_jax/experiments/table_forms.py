"""A table once, shown three ways: Markdown, HTML, and on the terminal."""

import dataclasses
import html
from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable


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


def markdown_text(text: str) -> str:
    """Text that Markdown and the HTML inside it leave as it is, on one line."""
    text = " ".join(html.escape(str(text), quote=False).split())
    for sign in "\\|*_`[]":
        text = text.replace(sign, "\\" + sign)
    return text


def to_markdown(table: Table) -> str:
    """The table's title is left to the caller; notes stand below as a list."""

    def shown(cell: Cell) -> str:
        text = markdown_text(cell.text)
        return (f"**{text}**" if cell.best else text) + (f" {cell.mark}" if cell.mark else "")

    width, words = len(table.head), table.text_columns
    lines = ["| " + " | ".join(map(markdown_text, table.head)) + " |"]
    lines.append("|" + "---|" * words + "---:|" * (width - words))
    for row in table.rows:
        cells = [shown(cell) for cell in row] + [""] * (width - len(row))
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"* {markdown_text(note)}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def to_html(table: Table) -> str:
    """A `<figure>` that scrolls within itself where the page is narrower than the table."""
    width, words = len(table.head), table.text_columns

    def head(i: int, name: str) -> str:
        # A short name stays on a line: browsers would break "Top-1" at its hyphen.
        kind = "" if i < words else f' class="number{" whole" if len(name) < 15 else ""}"'
        return f'<th scope="col"{kind}>{html.escape(name)}</th>'

    def body(i: int, cell: Cell, row: Sequence[Cell]) -> str:
        text = html.escape(cell.text)
        if cell.best:
            text = f"<strong>{text}</strong>"
        if cell.mark:
            text += f'<span class="mark"> {html.escape(cell.mark)}</span>'
        if i == 0:
            return f'<th scope="row">{text}</th>'
        if i == len(row) - 1 and len(row) < width:
            return f'<td class="remark" colspan="{width - i}">{text}</td>'
        return f"<td>{text}</td>" if i < words else f'<td class="number">{text}</td>'

    lines = [
        '<figure class="table">',
        # A keyboard reaches what scrolls: hence the tab stop, and a name for it.
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}">',
        f'<table id="{html.escape(table.slug)}"><caption>{html.escape(table.title)}</caption>',
        "<thead><tr>" + "".join(head(i, name) for i, name in enumerate(table.head)),
        "</tr></thead><tbody>",
    ]
    lines += [
        "<tr>" + "".join(body(i, cell, row) for i, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    ]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    lines.append("</tbody></table></div>")
    lines.append(f"<figcaption><ul>{notes}</ul></figcaption></figure>" if notes else "</figure>")
    return "\n".join(lines)


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
