"""A case as a page to print: the mention on the left, its candidates with their edges in rows."""

import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from rich.console import Console
from rich.text import Text

from data_pipeline.files import write_whole
from data_pipeline.schema import RELATIONS
from drin_jax.explain.cases import Candidate, Case, two_decimals
from drin_jax.explain.sources import Shown, Sources

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # not a line a family
DPI = 160
FONT = "DejaVu Sans"  # comes with matplotlib
PLACEHOLDERS = "Last Resort"  # shows a box for every character there is
# Inches from here on.
MARGIN, TOP, ROW, LEGEND, PICTURE = 0.4, 1.15, 1.3, 0.6, 2.6
MENTION, THUMB, ABOUT, SCORE, CELL, LONGEST = 3.7, 1.2, 2.9, 0.9, 0.45, 2.7
REASONS = 4.4
BETWEEN, LINE = 0.35, 0.2
NUMBERED = 0.3  # narrower cells hold no number
INK, GREY, GOLD, MISS, MARK, PALE = "#1d2329", "#6b7580", "#1f7a4d", "#b3372f", "#ffe08a", "#eef1f4"
MARKED = {"weight": "bold", "bbox": {"color": MARK, "pad": 1, "linewidth": 0}}
WEIGHTS = LinearSegmentedColormap.from_list(
    "weights", ["#b35806", "#fbe3c8", "#f7f8f9", "#a9cbe4", "#10519a"]
).with_extremes(bad=PALE)


def draw(path: Path, case: Case, sources: Sources, n: int, against: Case | None) -> str:
    """Write the page to `path`; returns the characters that no installed font shows."""
    shown = case.shown(n)
    others = [against.find(c.id) if against else None for c in shown]
    rows = max(len(shown), 1)
    strips = [c for c in (case, against) if c is not None and c.layers]
    parts = [re.sub(r"\s+", " ", part) for part in sources.parts(case.id, case.surface)]
    text = wrapped(Text.assemble(parts[0], (parts[1], "bold"), parts[2]), MENTION, 10, 16)
    widths = [THUMB, ABOUT, SCORE, *[REASONS] * bool(case.gains)]
    widths += [min(CELL * (c.layers + 1), LONGEST) for c in strips]
    start = MARGIN + MENTION + 0.5
    width = start + sum(widths) + BETWEEN * (len(widths) - 1) + MARGIN
    height = TOP + max(len(text) * LINE + 0.1 + PICTURE, ROW * rows + LEGEND) + MARGIN
    about = [f"{c.name}{c.id}{sources.description(c.id)}" for c in shown]
    reasons = "".join(told for c in shown for told in c.reasons.values())
    told = "".join(
        [reasons, case.surface, case.system, case.gold, case.id, *map(str, text), *about]
    )
    families, unseen = fonts_for(told + (against.system if against else "") + "abc…→–“”·012")
    settings: Any = {"font.family": families, "pdf.fonttype": 42, "svg.fonttype": "none",
                     "text.parse_math": False, "text.color": INK}  # fmt: skip
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # they are returned
        figure = Figure(figsize=(width, height), dpi=DPI)
        _heading(figure, case, against)
        _mention(figure, text, case, sources)
        bottom = 1 - (TOP + ROW * rows) / height
        grid = figure.add_gridspec(
            rows,
            len(widths),
            width_ratios=widths,
            left=start / width,
            right=1 - MARGIN / width,
            top=1 - TOP / height,
            bottom=bottom,
            wspace=BETWEEN * len(widths) / sum(widths),
            hspace=0.3,
        )
        found = [c.edges.ravel() for c in (*shown, *others) if c and c.edges is not None]
        limit = float(np.nanmax(np.abs(np.concatenate([[1.0], *found]))))
        for i, (candidate, other) in enumerate(zip(shown, others, strict=True)):
            cells = [figure.add_subplot(grid[i, j]) for j in range(len(widths))]
            _candidate(cells[0], cells[1], candidate, sources)
            _scores(cells[2], candidate, other, against is not None)
            if case.gains:
                _reasons(cells.pop(3), candidate, case)
            for strip, axes in zip(strips, cells[3:], strict=True):
                own = candidate if strip is case else other
                name = "this run" if strip is case else "against"
                heading = name if i == 0 and len(strips) > 1 else ""
                _strip(axes, own.edges if own else None, limit, i == 0, heading)
        if strips:
            x, y = start / width, bottom - 0.3 / height
            bar = figure.add_axes((x, y, 2 / width, 0.12 / height))
            colours = ScalarMappable(Normalize(-limit, limit), WEIGHTS)
            figure.colorbar(colours, bar, orientation="horizontal").ax.tick_params(labelsize=7)
            note = "edge weight; before: from the frozen features, what static edges keep"
            figure.text(x + 2.2 / width, y, note, fontsize=7.5, color=GREY)
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:].lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(content.getvalue()))
    return unseen


def fonts_for(text: str) -> tuple[list[str], str]:
    """Families that together show the text, the first one first, and the characters none has."""
    missing = {c for c in text if not c.isspace() and c.isprintable()}
    families: list[str] = []
    entries = font_manager.fontManager.ttflist
    for entry in sorted(entries, key=lambda e: (e.name != FONT, e.weight != 400, e.style)):
        if not missing:
            break
        if entry.name in families or entry.name.startswith(PLACEHOLDERS):
            continue
        try:
            has = font_manager.get_font(entry.fname).get_charmap()
        except (OSError, RuntimeError):  # a font that lies about itself is no font
            continue
        found = {c for c in missing if ord(c) in has}
        if found or not families:
            families.append(entry.name)
            missing -= found
    return families, "".join(sorted(missing))


def wrapped(text: Text, width: float, size: float, most: int) -> list[Text]:
    """At most so many lines of the text, as fit in `width` inches at this font size."""
    columns = int(width * 72 / (size * 0.58))  # of a letter's mean width; wide scripts take two
    lines = list(text.wrap(Console(width=columns), columns, overflow="fold"))
    if len(lines) > most:
        lines = [*lines[: most - 1], Text.assemble(lines[most - 1], " …")]
    return lines


def _lines(text: str, width: float, size: float, most: int) -> list[str]:
    return [line.plain for line in wrapped(Text(text), width, size, most)]


def _whole(text: str) -> str:
    """A space that begins a piece would be lost in an SVG."""
    return f"\u00a0{text[1:]}" if text.startswith(" ") else text


def _write(at: Figure | Axes, x: float, y: float, lines: list[list[tuple[str, dict]]]) -> None:
    """Lines of pieces of text with their styles, the top left at (x, y) of a figure or axes."""
    rows: list[Any] = [
        HPacker(pad=0, sep=0, align="baseline",
                children=[TextArea(_whole(text), textprops=style) for text, style in line])
        for line in lines
    ]  # fmt: skip
    to = at.transFigure if isinstance(at, Figure) else at.transAxes
    box = AnchoredOffsetbox("upper left", child=VPacker(pad=0, sep=3, children=rows), pad=0,
                            borderpad=0, frameon=False, bbox_to_anchor=(x, y),
                            bbox_transform=to)  # fmt: skip
    at.add_artist(box)


def _heading(figure: Figure, case: Case, against: Case | None) -> None:
    width, height = figure.get_size_inches()
    right = bool(case.candidates) and case.candidates[0].gold
    verdict = ("right" if right else "wrong") if case.gold else ""  # of new text nobody knows
    bold = {"size": 11, "weight": "bold", "color": GOLD if right else MISS}
    surface = _lines(f"“{case.surface}”", width / 2, 15, 1)[0]
    about = f"{case.split} {case.id} · {case.system}"
    about += f" · against {against.system}" if against else ""
    lines: list[Any] = [
        [
            (surface, {"size": 15, "weight": "bold"}),
            (f"   {verdict}   ", bold),
            (f"gold: {case.gold}" if case.gold else "", {"size": 11}),
        ],
        [(_lines(about, width - 2 * MARGIN, 8, 1)[0], {"size": 8, "color": GREY})],
    ]
    _write(figure, MARGIN / width, 1 - 0.28 / height, lines)


def _mention(figure: Figure, lines: list[Text], case: Case, sources: Sources) -> None:
    """The text with its span marked, and the picture below it."""
    width, height = figure.get_size_inches()
    low = height - TOP - len(lines) * LINE - 0.1
    pieces = []
    for line in lines:
        ends = {i for span in line.spans for i in (span.start, span.end)} - {0, len(line)}
        parts = [part for part in line.divide(sorted(ends)) if part.plain]
        pieces.append([(p.plain, {"size": 10, **(MARKED if p.spans else {})}) for p in parts])
    _write(figure, MARGIN / width, 1 - TOP / height, pieces)
    picture, why = sources.picture(sources.mentions.get(case.id))
    at = (MARGIN / width, (low - PICTURE) / height, MENTION / width, PICTURE / height)
    _picture(figure.add_axes(at), picture, sources.missing or why, MENTION, "NW")


def _picture(axes: Axes, picture: Shown, why: str, width: float, anchor: Any = "C") -> None:
    """A picture, or why there is none."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if picture is not None:
        small = picture.copy()
        small.thumbnail((int(width * DPI), int(width * DPI)))
        axes.imshow(small)
        axes.set_anchor(anchor)
        return
    axes.set_facecolor(PALE)
    told = "\n".join(_lines(why, width - 0.3, 7, 6))
    axes.text(0.5, 0.5, told, size=7, color=GREY, ha="center", va="center",
              transform=axes.transAxes)  # fmt: skip


def _candidate(thumb: Axes, axes: Axes, c: Candidate, sources: Sources) -> None:
    """Its picture, rank, name, id and description."""
    if c.gold:
        thumb.set_ylabel("gold", color=GOLD, weight="bold", size=9)
    entity = sources.entities.get(c.id)
    picture, why = sources.picture(entity)
    why = "no picture" if entity is None and not c.has_image else why
    _picture(thumb, picture, why, THUMB)
    axes.set_axis_off()
    colour = GOLD if c.gold else MISS if c.rank == 1 else INK
    axes.text(0, 1, str(c.rank), size=13, weight="bold", color=colour, va="top",
              transform=axes.transAxes)  # fmt: skip
    bold = {"size": 10, "weight": "bold", "color": GOLD if c.gold else INK}
    room = ABOUT - 0.4
    lines: list[Any] = [[(line, bold)] for line in _lines(c.name, room, 10, 2)]
    lines += [[(_lines(c.id + " · gold" * c.gold, room, 7.5, 1)[0], {"size": 7.5, "color": GREY})]]
    about = _lines(sources.description(c.id), room, 8, 6 - len(lines))
    _write(axes, 0.13, 1, [*lines, *([(line, {"size": 8})] for line in about)])


def _scores(axes: Axes, c: Candidate, other: Candidate | None, against: bool) -> None:
    axes.set_axis_off()
    at: dict[str, Any] = {"ha": "right", "va": "top", "transform": axes.transAxes}
    axes.text(1, 1, f"{c.score:.3f}", size=10, weight="bold", **at)
    if against:
        told = f"{other.score:.3f}\nrank {other.rank}" if other else "–\nnot ranked"
        axes.text(1, 0.75, f"against\n{told}", size=7.5, color=GREY, **at)


def _reasons(axes: Axes, c: Candidate, case: Case) -> None:
    """What is known of it, first what adds most to the lead of the first candidate."""
    axes.set_axis_off()
    names = sorted(c.reasons, key=lambda name: -case.gains.get(name, -np.inf))
    told = [_lines(f"{name}: {c.reasons[name]}", REASONS, 7.5, 1)[0] for name in names]
    _write(axes, 0, 1, [[(line, {"size": 7.5})] for line in told[:8]])


def _strip(axes: Axes, edges: np.ndarray | None, limit: float, heads: bool, heading: str) -> None:
    """Relations as rows, before and after every layer as columns."""
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    if edges is None:
        return
    steps = len(edges)
    shades = Normalize(-limit, limit)
    axes.pcolormesh(np.ma.masked_invalid(edges.T), cmap=WEIGHTS, norm=shades, edgecolors="white")
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(RELATIONS)) + 0.5, RELATIONS)
    axes.tick_params(length=0, labelsize=7, labelcolor=GREY)
    numbered = min(CELL, LONGEST / steps) >= NUMBERED
    if heads:
        axes.xaxis.tick_top()
        names = ["before", "layer 1" if numbered else "1", *map(str, range(2, steps))]
        axes.set_xticks(np.arange(steps) + 0.5, names[:steps])
        axes.set_title(heading, size=7.5, color=GREY, weight="bold", loc="left")
    for (layer, i), weight in np.ndenumerate(edges if numbered else edges[:0]):
        dark = abs(weight) > 0.6 * limit
        number = "–" if np.isnan(weight) else two_decimals(float(weight))
        axes.text(layer + 0.5, i + 0.5, number, size=7, color="white" if dark else INK,
                  ha="center", va="center")  # fmt: skip
