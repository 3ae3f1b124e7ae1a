"""The report's plots: what is drawn, how it looks, and how it is written."""

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data_pipeline.files import write_whole
from data_pipeline.schema import RELATIONS
from drin_jax.experiments.results import Results, Row, Spread, hits

# Okabe and Ito's palette, safe for the colour-blind, without its yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539")
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P", "X"), ("-", "--", "-.", ":")
GREY = "#8b949e"
ROOM = 36  # letters of a title in a legend
WIDTH, HEIGHT = 7.6, 4.3  # inches
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d8dee4",
    "text.parse_math": False,  # a title may hold a dollar
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "drin_jax",  # the same results give the same file
}
# Suites whose rows are values of one number: slug and name of what it is.
ALONG = {
    "table4": ("layers", "L, graph layers"),
    "learning_curve": ("shares", "share of the training mentions, %"),
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure with what is said of it. `alt` tells in words what it shows."""

    slug: str
    title: str
    alt: str
    note: str
    figure: Figure

    def svg(self) -> bytes:
        """The figure as an SVG file."""
        return self._file("svg", metadata={"Date": None, "Creator": None})

    def save(self, folder: Path) -> None:
        """Write `folder`/SLUG.svg and SLUG.png."""
        folder.mkdir(parents=True, exist_ok=True)
        for form, content in (("svg", self.svg()), ("png", self._file("png", dpi=150))):
            path = folder / f"{self.slug}.{form}"
            write_whole(path, lambda file, content=content: file.write(content))  # type: ignore[misc]

    def _file(self, form: str, **options: Any) -> bytes:
        content = io.BytesIO()
        with _look():
            self.figure.savefig(content, format=form, **options)
        return content.getvalue()


@contextmanager
def _look() -> Iterator[None]:
    """Figures made and written under this look alike, whatever matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def make(results: Results) -> list[Plot]:
    """Every plot that these results have something for, in the page's order."""
    if not results.trained:
        return []
    along = ALONG.get(results.suite)
    drawn = [
        hits_curves(results),
        along_rows(results, *along) if along else None,
        by_kind(results),
        learning_curves(results),
        edge_weights(results),
    ]
    return [plot for plot in drawn if plot]


def _axes(x_label: str, y_label: str, draw: Callable[[Axes], None]) -> Figure:
    """One plot, its legend below."""
    with _look():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, *axes.get_legend_handles_labels())
    return figure


def _legend(figure: Figure, handles: Any, labels: Sequence[str]) -> None:
    columns = max(1, min(4, 96 // (max(map(len, labels), default=0) + 8)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def short(title: str) -> str:
    """A title as there is room for it in a plot; the tables have it whole."""
    return title if len(title) <= ROOM else title[: ROOM - 1].rstrip() + "…"


def _style(i: int) -> dict[str, Any]:
    """How the i-th row is drawn, the same in every plot: colour and marker, then also dashes."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
    }


def _errorbar(
    axes: Axes, x: Sequence[float], values: Sequence[Spread | None], title: str, **style: Any
) -> None:
    """Means in percent with bars of one standard deviation."""
    mean = [100 * v.mean if v else math.nan for v in values]
    sd = [100 * v.sd if v and v.sd is not None else math.nan for v in values]
    bars = sd if np.isfinite(sd).any() else None
    axes.errorbar(x, mean, yerr=bars, capsize=3, label=short(title), **style)


def _told(values: dict[str, Spread | None]) -> str:
    return ", ".join(f"{name} {100 * v.mean:.1f} %" for name, v in values.items() if v)


def _styled(results: Results) -> list[tuple[Row, dict[str, Any]]]:
    """The rows that were run, each with its look."""
    return [(row, _style(i)) for i, row in enumerate(results.rows) if row.runs]


def hits_curves(results: Results) -> Plot:
    """Top-k against k, a line a row, end to end."""
    split, ks = results.split, results.ks
    rows = _styled(results)

    def draw(axes: Axes) -> None:
        for row, style in rows:
            _errorbar(axes, ks, [row.spread(hits(k), split) for k in ks], row.title, **style)
        for i, (name, values) in enumerate(results.baselines(split).items()):
            if name.endswith(("optimistic", "pessimistic")):  # limits, which the tables have
                continue
            fractions = [Spread.of([values[hits(k)]]) for k in ks]
            _errorbar(axes, ks, fractions, name, color=GREY, linestyle=DASHES[1 + i % 3])
        axes.set_xscale("log")
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()

    return Plot(
        slug="hits",
        title=f"Top-k accuracy on {split}",
        alt=f"Top-{ks[0]}: {_told({r.title: r.spread(hits(ks[0]), split) for r, _ in rows})}.",
        note="End to end, every mention counted. Mean over seeds; bars are ± one standard "
        "deviation. Without a bar: one seed, or nothing that was trained.",
        figure=_axes("k (candidates looked at)", "accuracy, %", draw),
    )


def along_rows(results: Results, slug: str, name: str) -> Plot:
    """Top-1 on valid and on test against the number that each row's slug ends in."""
    rows = results.trained
    x = [int(row.row.rsplit("_", 1)[1]) for row in rows]
    values = {s: [row.spread(hits(1), s) for row in rows] for s in ("valid", "test")}

    def draw(axes: Axes) -> None:
        for i, (split, own) in enumerate(values.items()):
            _errorbar(axes, x, own, split, **_style(i))
        axes.set_xticks(x)

    told = [f"{s}: {_told({r.title: v for r, v in zip(rows, own, strict=True)})}"
            for s, own in values.items()]  # fmt: skip
    return Plot(
        slug=slug,
        title=f"Top-1 accuracy by {name}",
        alt=f"{'; '.join(told)}.",
        note="End to end. Bars are ± one standard deviation over seeds.",
        figure=_axes(name, "Top-1 accuracy, %", draw),
    )


def by_kind(results: Results) -> Plot | None:
    """Top-1 of every row on every kind of mention."""
    split, rows = results.split, _styled(results)
    sizes = {k: n for k, n in results.sizes(split).items() if k.startswith("kind:")}
    if not sizes:
        return None
    names = {kind: kind.removeprefix("kind:") for kind in sizes}

    def draw(axes: Axes) -> None:
        for i, (row, style) in enumerate(rows):
            beside = np.arange(len(sizes)) + 0.7 * ((i + 0.5) / len(rows) - 0.5)
            values = [row.spread(hits(1), split, kind) for kind in sizes]
            _errorbar(axes, beside.tolist(), values, row.title, **style | {"linestyle": "none"})
        labels = [f"{short(names[kind])}\n(n = {n})" for kind, n in sizes.items()]
        axes.set_xticks(range(len(sizes)), labels)
        axes.grid(axis="x", visible=False)

    told = [f"{names[k]}: {_told({r.title: r.spread(hits(1), split, k) for r, _ in rows})}"
            for k in sizes]  # fmt: skip
    return Plot(
        slug="kinds",
        title=f"Accuracy by kind of mention on {split}",
        alt=f"Top-1 accuracy by kind of mention. {'; '.join(told)}.",
        note="End to end. Bars are ± one standard deviation over seeds.",
        figure=_axes("kind of mention", "Top-1 accuracy, %", draw),
    )


def learning_curves(results: Results) -> Plot | None:
    """Valid score by epoch: seeds thin, their mean thick."""
    found = []
    for row, style in _styled(results):
        curves = [100 * np.array(run.data.get("valid_curve") or [], float) for run in row.runs]
        if curves := [curve for curve in curves if len(curve)]:
            found.append((row, style, curves))
    if not found:
        return None

    def draw(axes: Axes) -> None:
        for row, style, curves in found:
            for curve in curves:
                x = np.arange(1, len(curve) + 1)
                axes.plot(x, curve, color=style["color"], linewidth=0.6, alpha=0.5)
            # Where a seed has stopped, the mean ends: a mean of those left would jump.
            every = min(map(len, curves))
            mean = np.mean([curve[:every] for curve in curves], axis=0)
            axes.plot(range(1, every + 1), mean, label=short(row.title), markevery=0.2, **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    select_by = results.config.get("eval.select_by", "score")
    best = [
        f"{row.title} at best {max(map(np.nanmax, curves)):.1f} %"
        for row, _, curves in found
        if any(np.isfinite(curve).any() for curve in curves)
    ]
    return Plot(
        slug="learning",
        title="Learning curves",
        alt=f"Score on valid by epoch: {', '.join(best)}.",
        note=f"The valid score that picks the checkpoint ({select_by}, answerable mentions): thin "
        "lines are seeds, thick ones their mean, up to the epoch that every seed reached.",
        figure=_axes("epoch", "valid score, %", draw),
    )


def _edge_mean(row: Row, group: str, side: str) -> np.ndarray | None:
    """Mean over seeds of the mean weights, [L+1, 4]; NaN where a relation has no edge."""
    groups = [(run.data.get("edges") or {}).get(group, {}) for run in row.runs]
    found = [np.array(own[side], float) for own in groups if own.get(side)]  # None becomes NaN
    return np.mean(found, axis=0) if found else None


def edge_weights(results: Results) -> Plot | None:
    """Mean weight of each relation by layer, gold and other candidates apart, a panel a kind; of
    the row that the others are held against where it has edges, else of the first that has."""
    having = [row for row in results.rows if any(run.data.get("edges") for run in row.runs)]
    if not having:
        return None
    row = next((row for row in having if row.row == results.against), having[0])
    groups = list(next(run.data["edges"] for run in row.runs if run.data.get("edges")))
    told = []
    with _look():
        lines = math.ceil(len(groups) / 3)
        figure = Figure(figsize=(WIDTH, 2.3 * lines + 0.6), layout="constrained")
        grid = list(figure.subplots(lines, 3, squeeze=False, sharex=True, sharey=True).flat)
        for axes in grid[len(groups) :]:
            axes.set_visible(False)
        for axes, group in zip(grid, groups, strict=False):
            axes.set(title=short(group.removeprefix("kind:")), xlabel="layers applied")
            for side, dashes in (("gold", "-"), ("other", "--")):
                mean = _edge_mean(row, group, side)
                if mean is None:
                    continue
                for i, name in enumerate(RELATIONS):
                    style = _style(i) | {"linestyle": dashes, "label": f"{name}, {side}"}
                    axes.plot(range(len(mean)), mean[:, i], **style)
                ends = [f"{name} {mean[0, i]:.2f} to {mean[-1, i]:.2f}"
                        for i, name in enumerate(RELATIONS)
                        if np.isfinite(mean[[0, -1], i]).all()]  # fmt: skip
                told.append(f"{group}, {side} candidates: {', '.join(ends)}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelbottom=True)  # the one below it may be empty
        figure.supylabel("mean edge weight", fontsize=9)
        _legend(figure, *figure.axes[0].get_legend_handles_labels())
    return Plot(
        slug="edges",
        title=f"Edge weights by layer: {row.title}",
        alt=f"Mean edge weights before the first and after the last layer. {'; '.join(told)}.",
        note="As the paper's Figure 5: mean weight of the existing edges of test mentions; after 0 "
        "layers, the initial edges. Solid: the gold's edges; dashed: the other candidates'. First "
        "letter: the mention's side, second: the entity's; t text, v picture.",
        figure=figure,
    )
