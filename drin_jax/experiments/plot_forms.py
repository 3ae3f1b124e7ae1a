"""How plots look and how they are written: as SVG in the page's colours, and as files."""

import dataclasses
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, safe for the colour-blind, without its yellow and black; page.css has a
# lighter one of the same hues for dark pages, as --series-0 and on.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ((0, (1, 1.5)), (0, (5, 2)), (0, (5, 1.5, 1, 1.5)))  # of baselines
INK, GRID, OTHER, PAPER = "#1b1f24", "#d8dee4", "#8b949e", "#fefefe"
_VARIABLES = {c: f"var(--series-{i}, {c})" for i, c in enumerate(COLOURS)} | {
    INK: "currentColor",
    GRID: f"var(--grid, {GRID})",
    OTHER: f"var(--other, {OTHER})",
    PAPER: "none",
}
ROOM = 36  # letters over a panel
TOGETHER = 7  # lines that one plot can hold; more get a panel each


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure with what is said of it. `alt` tells in words what it shows."""

    slug: str
    title: str
    alt: str
    note: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Series:
    """A line over x [m] in percent: mean [m], sd [m] (NaN: none).

    `style` numbers colours and markers from 0; below 0 (-1, -2, ...) it is a baseline's, grey.
    """

    title: str
    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    style: int
    thin: Sequence[np.ndarray] = ()


def colour(i: int) -> str:
    """The i-th colour; below 0 the grey of what was not trained."""
    return OTHER if i < 0 else COLOURS[i % len(COLOURS)]


def short(title: str) -> str:
    """A title as there is room for it in a plot; the tables have it whole."""
    return title if len(title) <= ROOM else title[: ROOM - 1].rstrip() + "…"


@contextmanager
def look() -> Iterator[None]:
    """Figures made and written under this look alike, whatever matplotlibrc says."""
    settings: Any = {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.parse_math": False,  # a title may hold a dollar
        "lines.linewidth": 1.7,
        "lines.markersize": 5,
        "legend.frameon": False,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "svg.fonttype": "path",
        "svg.hashsalt": "drin_jax",  # the same results give the same file
    }
    for name in ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"):
        settings[name] = INK
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    axis: Callable[[Axes], None],
    bars: bool = False,
) -> Figure:
    """All lines in one plot, or, where they are too many to tell apart, in a panel each.

    Args:
        axis: sets the ticks of x.
        bars: deviations as error bars, not as bands.
    """
    if sum(s.style >= 0 for s in series) > TOGETHER:
        return panels(series, x_label, y_label, axis)
    with look():
        figure = Figure(figsize=(7.6, 4.3), layout="constrained")
        axes = figure.subplots()
        for one in series:
            _draw(axes, one, bars)
        axis(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def panels(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    axis: Callable[[Axes], None] | None = None,
) -> Figure:
    """A panel a line, the means of all others in grey behind it."""
    own = [s for s in series if s.style >= 0]
    with look():
        figure, shown = small_multiples(len(own), 2.1, x_label, y_label)
        for axes, one in zip(shown, own, strict=True):
            for other in series:
                if other is not one:
                    axes.plot(other.x, other.mean, color=OTHER, linewidth=0.7, alpha=0.5)
            _draw(axes, one, bars=False)
            axes.set_title(short(one.title))
            if axis:
                axis(axes)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def small_multiples(
    n: int, height: float, x_label: str, y_label: str = ""
) -> tuple[Figure, list[Axes]]:
    """n axes of one scale, three in a line, each `height` inches high; called under `look`."""
    columns = min(n, 3)
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(7.6, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    every = list(grid.flat)
    for axes in every[n:]:
        axes.set_visible(False)
    for i, axes in enumerate(every[:n]):
        if i + columns >= n:  # nothing stands below
            axes.set_xlabel(x_label)
            axes.tick_params(labelbottom=True)
        if i % columns == 0:
            axes.set_ylabel(y_label)
    return figure, every[:n]


def _draw(axes: Axes, one: Series, bars: bool) -> None:
    shade = colour(one.style)
    for line in one.thin:
        axes.plot(one.x, line, color=shade, linewidth=0.7, alpha=0.7)
    baseline = one.style < 0
    marker = None if baseline or one.thin else MARKERS[one.style % len(MARKERS)]
    style: Any = DASHES[one.style % len(DASHES)] if baseline else "-"
    # A thick mean without markers hides its points where there is one alone.
    if one.thin and np.isfinite(one.mean).sum() == 1:
        marker = "o"
    axes.plot(one.x, one.mean, color=shade, marker=marker, linestyle=style, label=short(one.title))
    known = np.isfinite(one.sd) & np.isfinite(one.mean)
    if known.any() and bars:
        x, mean, sd = one.x[known], one.mean[known], one.sd[known]
        axes.errorbar(x, mean, yerr=sd, color=shade, fmt="none", capsize=3, linewidth=1.2)
    elif known.any():
        low, high = one.mean - one.sd, one.mean + one.sd
        axes.fill_between(one.x, low, high, color=shade, alpha=0.18, linewidth=0)


def legend_below(figure: Figure, handles: Any, labels: Sequence[str]) -> None:
    """One legend for the whole figure, under it."""
    longest = max(map(len, labels), default=0)
    columns = max(1, min(len(labels), 4, 96 // (longest + 8)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def svg(plot: Plot) -> str:
    """The plot as an `<svg>` element that stands alone: no header, no address, no metadata."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with look():
        plot.figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Two plots on one page must not share names, or the second borrows the first's clips.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{plot.slug}-", text)
    label = html.escape(plot.alt)
    title = f"<title>{html.escape(plot.title)}</title><desc>{label}</desc>"
    opening = re.match(r"<svg[^>]*>", text)
    assert opening is not None
    head = opening.group().replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return head + title + text[opening.end() :]


def inline(text: str) -> str:
    """The element within an HTML page: of the page's colours, as wide as there is room."""
    for fixed, variable in _VARIABLES.items():
        text = text.replace(fixed, variable)
    head, rest = text.split(">", 1)
    head = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    return f"{head}>{rest}"


def save(plot: Plot, text: str, folder: Path) -> None:
    """`folder`/SLUG.svg (the element `text`) and SLUG.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{plot.slug}.svg").write_text(text)
    with look():
        plot.figure.savefig(folder / f"{plot.slug}.png", dpi=150)
