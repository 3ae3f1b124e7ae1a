"""The report's plots: what is drawn, how it looks, and how it is written."""

import base64
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data_pipeline.files import write_whole
from data_pipeline.schema import RELATIONS
from drin_jax.experiments.results import Results, Row, Spread

# Okabe and Ito's palette, safe for the colour-blind, without its yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539")
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P", "X"), ("-", "--", "-.", ":")
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
    "grid.color": "#d8dee4",
    "text.parse_math": False,  # a title may hold a dollar
    "lines.markersize": 5,
    "errorbar.capsize": 3,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "drin_jax",  # the same results give the same file
}
# Suites whose rows are values of one number: slug and name of what it is.
ALONG = {
    "table4": ("layers", "L, graph layers"),
    "learning_curve": ("shares", "share of the training mentions, %"),
}
BARS = "Bars are ± one standard deviation over seeds."


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure with what is said of it. `alt` tells in words what it shows."""

    slug: str
    title: str
    alt: str
    note: str
    figure: Figure

    def file(self, form: str) -> bytes:
        """The figure as an "svg" or a "png" file."""
        content = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if form == "svg" else None  # nothing of the hour
        with _look():
            self.figure.savefig(content, format=form, dpi=150, metadata=metadata)
        return content.getvalue()

    def address(self) -> str:
        """The figure as an address that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.file("svg")).decode()

    def save(self, folder: Path) -> None:
        """Write `folder`/SLUG.svg and SLUG.png."""
        folder.mkdir(parents=True, exist_ok=True)
        for form in ("svg", "png"):
            content = self.file(form)
            write_whole(folder / f"{self.slug}.{form}", lambda file, c=content: file.write(c))  # type: ignore[misc]


def make(results: Results) -> list[Plot]:
    """Every plot that these results have something for, in the page's order."""
    if not results.trained:
        return []
    drawn = (hits_curves, along_rows, by_kind, learning_curves, edge_weights)
    return [plot for draw in drawn if (plot := draw(results))]


@contextmanager
def _look() -> Iterator[None]:
    """Figures made and written under this look alike, whatever matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _line(
    x: Sequence[float], values: Sequence[Spread | None], row: str, look: Mapping[str, Any]
) -> dict[str, Any]:
    """A row's means in percent with bars of one standard deviation, as `Axes.errorbar` has them."""
    mean = [100 * v.mean if v else math.nan for v in values]
    sd = [100 * v.sd if v and v.sd is not None else math.nan for v in values]
    bars = sd if np.isfinite(sd).any() else None
    return {"x": x, "y": mean, "yerr": bars, "label": short(row), **look}


def _figure(
    panels: Mapping[str, Sequence[dict[str, Any]]],
    x_label: str,
    y_label: str,
    ticks: Mapping[int, str] | None = None,
    x_scale: str = "linear",
) -> Figure:
    """Panels of lines by their titles, three side by side; the legend, the first one's, is below.
    A line without a label is not in it."""
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    with _look():
        size = (WIDTH, HEIGHT if len(panels) == 1 else 2.3 * down + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, lines) in zip(grid, panels.items(), strict=False):
            axes.set(title=title, xlabel=x_label, xscale=x_scale)
            for line in lines:
                axes.errorbar(**line)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if ticks:
                axes.set_xticks([*ticks], [*ticks.values()])
                axes.minorticks_off()
            axes.tick_params(labelbottom=True)  # the one below it may be empty
        figure.supylabel(y_label, fontsize=9)
        handles, labels = grid[0].get_legend_handles_labels()
        columns = max(1, min(4, 96 // (max(map(len, labels), default=0) + 8)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure


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


def _styled(results: Results) -> list[tuple[Row, dict[str, Any]]]:
    """The rows that were run, each with its look."""
    return [(row, _style(i)) for i, row in enumerate(results.rows) if row.runs]


def _told(results: Results, split: str, k: int = 1, subset: str = "all") -> str:
    """The rows' Top-k in words."""
    found = ((row.title, row.spread(f"hits@{k}", split, subset)) for row in results.trained)
    return ", ".join(f"{title} {100 * value.mean:.1f} %" for title, value in found if value)


def hits_curves(results: Results) -> Plot:
    """Top-k against k, a line a row, end to end."""
    split, ks = results.split, results.first["ks"]
    lines = [
        _line(ks, [row.spread(f"hits@{k}", split) for k in ks], row.title, look)
        for row, look in _styled(results)
    ]
    for i, (name, values) in enumerate(results.baselines(split).items()):
        if not name.endswith(("optimistic", "pessimistic")):  # limits, which the tables have
            look = {"color": "#8b949e", "linestyle": DASHES[1 + i % 3]}
            lines.append(_line(ks, [Spread(values[f"hits@{k}"]) for k in ks], name, look))
    ticks = {k: str(k) for k in ks}
    return Plot(
        slug="hits",
        title=f"Top-k accuracy on {split}",
        alt=f"Top-{ks[0]}: {_told(results, split, ks[0])}.",
        note=f"End to end, every mention counted. Mean over seeds. {BARS} Without a bar: one seed, "
        "or nothing that was trained.",
        figure=_figure({"": lines}, "k (candidates looked at)", "accuracy, %", ticks, "log"),
    )


def along_rows(results: Results) -> Plot | None:
    """Top-1 on valid and on test against the number that each row's slug ends in."""
    if results.suite not in ALONG:
        return None
    slug, name = ALONG[results.suite]
    rows, splits = results.trained, ("valid", "test")
    x = [int(row.row.rsplit("_", 1)[1]) for row in rows]
    lines = [
        _line(x, [row.spread("hits@1", split) for row in rows], split, _style(i))
        for i, split in enumerate(splits)
    ]
    return Plot(
        slug=slug,
        title=f"Top-1 accuracy by {name}",
        alt="; ".join(f"{split}: {_told(results, split)}" for split in splits) + ".",
        note=f"End to end. {BARS}",
        figure=_figure({"": lines}, name, "Top-1 accuracy, %", {n: str(n) for n in x}),
    )


def by_kind(results: Results) -> Plot | None:
    """Top-1 of every row on every kind of mention."""
    split, rows = results.split, _styled(results)
    kinds = {k.removeprefix("kind:"): k for k in results.sizes(split) if k.startswith("kind:")}
    if not kinds:
        return None
    lines = []
    for i, (row, look) in enumerate(rows):
        beside = np.arange(len(kinds)) + 0.7 * ((i + 0.5) / len(rows) - 0.5)
        values = [row.spread("hits@1", split, kind) for kind in kinds.values()]
        lines.append(_line(beside.tolist(), values, row.title, look | {"linestyle": "none"}))
    sizes = results.sizes(split)
    ticks = {i: f"{short(k)}\n(n = {sizes[kinds[k]]})" for i, k in enumerate(kinds)}
    told = "; ".join(f"{k}: {_told(results, split, subset=kinds[k])}" for k in kinds)
    return Plot(
        slug="kinds",
        title=f"Accuracy by kind of mention on {split}",
        alt=f"Top-1 accuracy by kind of mention. {told}.",
        note=f"End to end. {BARS}",
        figure=_figure({"": lines}, "kind of mention", "Top-1 accuracy, %", ticks),
    )


def learning_curves(results: Results) -> Plot | None:
    """Valid score by epoch: seeds thin, their mean thick."""
    lines: list[dict[str, Any]] = []
    best = []
    for row, look in _styled(results):
        curves = [
            100 * np.array(curve) for run in row.runs if (curve := run.data.get("valid_curve"))
        ]
        if not curves:
            continue
        thin = {"color": look["color"], "linewidth": 0.6, "alpha": 0.5, "label": "_"}
        lines += [{"x": range(1, len(curve) + 1), "y": curve} | thin for curve in curves]
        # Where a seed has stopped, the mean ends: a mean of those left would jump.
        every = min(map(len, curves))
        mean = np.mean([curve[:every] for curve in curves], axis=0)
        thick = look | {"markevery": 0.2, "label": short(row.title)}
        lines.append({"x": range(1, every + 1), "y": mean} | thick)
        best.append(f"{row.title} at best {np.concatenate(curves).max():.1f} %")
    if not lines:
        return None
    select_by = results.config.get("eval.select_by", "score")
    return Plot(
        slug="learning",
        title="Learning curves",
        alt=f"Score on valid by epoch: {', '.join(best)}.",
        note=f"The valid score that picks the checkpoint ({select_by}, answerable mentions): thin "
        "lines are seeds, thick ones their mean, up to the epoch that every seed reached.",
        figure=_figure({"": lines}, "epoch", "valid score, %"),
    )


def edge_weights(results: Results) -> Plot | None:
    """Mean weight of each relation by layer, gold and other candidates apart, a panel a kind; of
    the row that the others are held against where it has edges, else of the first that has."""
    having = [row for row in results.trained if row.runs[0].data.get("edges")]
    if not having:
        return None
    row = next((row for row in having if row.row == results.against), having[0])
    panels: dict[str, list[dict[str, Any]]] = {}
    told = []
    for group in row.runs[0].data["edges"]:
        lines = panels.setdefault(short(group.removeprefix("kind:")), [])
        for side, dashes in (("gold", "-"), ("other", "--")):
            # [L+1, 4] of each seed; NaN where a relation has no edge.
            found = [np.array(run.data["edges"][group][side], float) for run in row.runs]
            mean = np.mean(found, axis=0)
            for i, name in enumerate(RELATIONS):
                look = _style(i) | {"linestyle": dashes, "label": f"{name}, {side}"}
                lines.append({"x": range(len(mean)), "y": mean[:, i]} | look)
            ends = [f"{name} {first:.2f} to {last:.2f}"
                    for name, first, last in zip(RELATIONS, mean[0], mean[-1], strict=True)
                    if np.isfinite(first + last)]  # fmt: skip
            told.append(f"{group}, {side} candidates: {', '.join(ends)}")
    return Plot(
        slug="edges",
        title=f"Edge weights by layer: {row.title}",
        alt=f"Mean edge weights before the first and after the last layer. {'; '.join(told)}.",
        note="As the paper's Figure 5: mean weight of the existing edges of test mentions; after 0 "
        "layers, the initial edges. Solid: the gold's edges; dashed: the other candidates'. First "
        "letter: the mention's side, second: the entity's; t text, v picture.",
        figure=_figure(panels, "layers applied", "mean edge weight"),
    )
