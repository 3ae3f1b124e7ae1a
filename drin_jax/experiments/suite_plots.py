"""The report's plots: what is drawn, how it looks, and what is said of it."""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data_pipeline.schema import RELATIONS
from drin_jax.experiments.results import NOTHING, Results, Row, Spread

# Okabe and Ito's palette, safe for the colour-blind, without its yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f5539")
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P", "X"), ("-", "--", "-.", ":")
ROOM = 36  # letters of a title in a legend
WIDTH, HEIGHT = 7.6, 4.3  # inches
STYLE = Path(__file__).with_name("report.mplstyle")
BARS = "Bars are ± one standard deviation over seeds."
ALONG = f"End to end. {BARS}"
# Slug -> title, what is along x and y, and what has to be known to read it.
TOLD = {
    "hits": ("Top-k accuracy on {split}", "k (candidates looked at)", "accuracy, %",
             f"End to end, every mention counted. Mean over seeds. {BARS} Without a bar: one seed, "
             "or nothing that was trained."),
    "table4": ("Top-1 accuracy by L, graph layers", "L, graph layers", "Top-1 accuracy, %", ALONG),
    "learning_curve": ("Top-1 accuracy by share of the training mentions",
                       "share of the training mentions, %", "Top-1 accuracy, %", ALONG),
    "kinds": ("Accuracy by kind of mention on {split}", "kind of mention", "Top-1 accuracy, %",
              ALONG),
    "learning": ("Learning curves", "epoch", "valid score, %",
                 "The valid score that picks the checkpoint ({select_by}, answerable mentions): "
                 "thin lines are seeds, thick ones their mean, up to the epoch that every seed "
                 "reached."),
    "edges": ("Edge weights by layer: {row}", "layers applied", "mean edge weight",
              "As the paper's Figure 5: mean weight of the existing edges of test mentions; after "
              "0 layers, the initial edges. Solid: the gold's edges; dashed: the other "
              "candidates'. First letter: the mention's side, second: the entity's; t text, v "
              "picture."),
}  # fmt: skip

Line = dict[str, Any]  # as `Axes.errorbar` takes it; what is labelled "_" is not in the legend


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure, its files' content by their suffix (svg, png), and what is said of it. `alt` tells
    in words what it shows."""

    slug: str
    title: str
    alt: str
    note: str
    figure: Figure
    files: Mapping[str, bytes]

    def address(self) -> str:
        """The figure as an address that holds it."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.files["svg"]).decode()


def make(results: Results) -> list[Plot]:
    """Every plot that these results have something for, in the page's order."""
    if not results.trained:
        return []
    drawn = (hits_curves, along_rows, by_kind, learning_curves, edge_weights)
    return [plot for draw in drawn if (plot := draw(results))]


def _plot(
    slug: str,
    panels: Mapping[str, Sequence[Line]],
    ticks: Mapping[int, str] | None = None,
    x_scale: str = "linear",
    **named: str,
) -> Plot:
    """Panels of lines by their titles, three side by side; the legend, the first one's, is below.
    `named` are the fields of what `TOLD` has for the slug."""
    title, x_label, y_label, note = (text.format(**named) for text in TOLD[slug])
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    files, said = {}, []
    with style.context(STYLE, after_reset=True):  # alike, whatever matplotlibrc says
        size = (WIDTH, HEIGHT if len(panels) == 1 else 2.3 * down + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (panel, lines) in zip(grid, panels.items(), strict=False):
            axes.set(title=panel, xlabel=x_label, xscale=x_scale)
            for line in lines:
                axes.errorbar(**line)
                if line["label"] != "_":
                    said.append(f"{panel} {line['label']} {_points(line['y'])}".strip())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if ticks:
                axes.set_xticks([*ticks], [*ticks.values()])
                axes.minorticks_off()
            axes.tick_params(labelbottom=True)  # the one below it may be empty
        for axes in grid[::across]:
            axes.set_ylabel(y_label)
        handles, labels = grid[0].get_legend_handles_labels()
        columns = max(1, min(4, 96 // (max(map(len, labels), default=0) + 8)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        nothing_of_the_hour: Any = {"svg": {"Date": None, "Creator": None}}
        for form in ("svg", "png"):
            content = io.BytesIO()
            metadata = nothing_of_the_hour.get(form)
            figure.savefig(content, format=form, dpi=150, metadata=metadata)
            files[form] = content.getvalue()
    along = f" ({', '.join(' '.join(tick.split()) for tick in ticks.values())})" if ticks else ""
    alt = f"{y_label} by {x_label}{along}: {'; '.join(said)}."
    return Plot(slug, title, alt, note, figure, files)


def _points(values: Any) -> str:
    """A line's points in words; of many the ends and the highest."""
    shown = [NOTHING if math.isnan(value) else f"{value:.3g}" for value in values]
    if len(shown) <= 6:
        return ", ".join(shown)
    return f"{shown[0]} to {shown[-1]}, at most {np.nanmax(values):.3g}"


def _line(
    x: Sequence[float], values: Sequence[Spread | None], label: str, look: Mapping[str, Any]
) -> Line:
    """Means in percent with bars of one standard deviation."""
    mean = [100 * v.mean if v else math.nan for v in values]
    sd = [100 * v.sd if v and v.sd is not None else math.nan for v in values]
    bars = sd if np.isfinite(sd).any() else None
    return {"x": x, "y": mean, "yerr": bars, "label": _short(label), **look}


def _short(title: str) -> str:
    """A title as there is room for it in a plot; the tables have it whole."""
    return title if len(title) <= ROOM else title[: ROOM - 1].rstrip() + "…"


def _look(i: int) -> dict[str, Any]:
    """How the i-th row is drawn, the same in every plot: colour and marker, then also dashes."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
    }


def _looks(results: Results) -> list[tuple[Row, dict[str, Any]]]:
    """The rows that were run, each with its look."""
    return [(row, _look(i)) for i, row in enumerate(results.rows) if row.runs]


def hits_curves(results: Results) -> Plot:
    """Top-k against k, a line a row, end to end."""
    split, ks = results.split, results.first["ks"]
    lines = [
        _line(ks, [row.spread(f"hits@{k}", split) for k in ks], row.title, look)
        for row, look in _looks(results)
    ]
    for i, (name, values) in enumerate(results.baselines(split).items()):
        if not name.endswith(("optimistic", "pessimistic")):  # limits, which the tables have
            look = {"color": "#8b949e", "linestyle": DASHES[1 + i % 3]}
            lines.append(_line(ks, [Spread(values[f"hits@{k}"]) for k in ks], name, look))
    return _plot("hits", {"": lines}, {k: str(k) for k in ks}, "log", split=split)


def along_rows(results: Results) -> Plot | None:
    """Top-1 on valid and on test against the number that each row's slug ends in."""
    if results.suite not in TOLD:
        return None
    rows = results.trained
    x = [int(row.row.rsplit("_", 1)[1]) for row in rows]
    lines = [
        _line(x, [row.spread("hits@1", split) for row in rows], split, _look(i))
        for i, split in enumerate(("valid", "test"))
    ]
    return _plot(results.suite, {"": lines}, {n: str(n) for n in x})


def by_kind(results: Results) -> Plot | None:
    """Top-1 of every row on every kind of mention."""
    split, rows = results.split, _looks(results)
    sizes = {kind: n for kind, n in results.sizes(split).items() if kind.startswith("kind:")}
    if not sizes:
        return None
    lines = []
    for i, (row, look) in enumerate(rows):
        beside = np.arange(len(sizes)) + 0.7 * ((i + 0.5) / len(rows) - 0.5)
        values = [row.spread("hits@1", split, kind) for kind in sizes]
        lines.append(_line(beside.tolist(), values, row.title, look | {"linestyle": "none"}))
    names = [f"{_short(kind.removeprefix('kind:'))}\n(n = {n})" for kind, n in sizes.items()]
    return _plot("kinds", {"": lines}, dict(enumerate(names)), split=split)


def learning_curves(results: Results) -> Plot | None:
    """Valid score by epoch: seeds thin, their mean thick."""
    lines: list[Line] = []
    for row, look in _looks(results):
        found = (run.data.get("valid_curve") for run in row.runs)
        if not (curves := [100 * np.array(curve) for curve in found if curve]):
            continue
        thin = {"color": look["color"], "linewidth": 0.6, "alpha": 0.5, "label": "_"}
        lines += [{"x": range(1, len(curve) + 1), "y": curve} | thin for curve in curves]
        # Where a seed has stopped, the mean ends: a mean of those left would jump.
        every = min(map(len, curves))
        mean = np.mean([curve[:every] for curve in curves], axis=0)
        thick = look | {"markevery": 0.2, "label": _short(row.title)}
        lines.append({"x": range(1, every + 1), "y": mean} | thick)
    select_by = results.config.get("eval.select_by", "score")
    return _plot("learning", {"": lines}, select_by=select_by) if lines else None


def edge_weights(results: Results) -> Plot | None:
    """Mean weight of each relation by layer, gold and other candidates apart, a panel a kind; of
    the row that the others are held against where it has edges, else of the first that has."""
    having = [row for row in results.trained if row.runs[0].data.get("edges")]
    if not having:
        return None
    row = next((row for row in having if row.row == results.against), having[0])
    panels: dict[str, list[Line]] = {}
    for group in row.runs[0].data["edges"]:
        lines = panels.setdefault(_short(group.removeprefix("kind:")), [])
        for side, dashes in (("gold", "-"), ("other", "--")):
            # [L+1, 4] of each seed; NaN where a relation has no edge.
            found = [np.array(run.data["edges"][group][side], float) for run in row.runs]
            for i, (name, mean) in enumerate(zip(RELATIONS, np.mean(found, 0).T, strict=True)):
                look = _look(i) | {"linestyle": dashes, "label": f"{name}, {side}"}
                lines.append({"x": range(len(mean)), "y": mean} | look)
    return _plot("edges", panels, row=row.title)
