"""The report's plots: what is drawn. How it looks, and how it is written, is `plot_forms`."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from drin_jax.experiments import measures, plot_forms
from drin_jax.experiments.measures import Spread, hits, spread
from drin_jax.experiments.plot_forms import INK, Plot, Series
from drin_jax.experiments.results import Results, Row, Run

RELATIONS = ("tt", "tv", "vt", "vv")
# Suites whose rows are values of one number: slug and name of what it is.
ALONG = {
    "table4": ("layers", "L, graph layers"),
    "learning_curve": ("shares", "share of the training mentions, %"),
}


def make(results: Results) -> list[Plot]:
    """Every plot that these results have something for, in the page's order."""
    along = ALONG.get(results.suite)
    drawn = [
        hits_curves(results),
        along_rows(results, *along) if along else None,
        by_kind(results),
        learning_curves(results),
        edge_weights(results),
    ]
    return [plot for plot in drawn if plot]


def _points(x: Sequence[float], values: Sequence[Spread | None], **look: Any) -> Series:
    """A line with a band of one standard deviation, in percent."""
    mean = np.array([100 * v.mean if v else math.nan for v in values])
    sd = np.array([100 * v.sd if v and v.sd is not None else math.nan for v in values])
    return Series(x=np.asarray(x, float), mean=mean, sd=sd, **look)


def hits_curves(results: Results) -> Plot | None:
    """Top-k against k, a line a row, end to end."""
    split, ks = results.split, results.ks
    series = [
        _points(ks, [spread(row, hits(k), split) for k in ks], title=row.title, style=i)
        for i, row in enumerate(results.rows)
        if row.runs
    ]
    if not series:
        return None
    many = len(series) > plot_forms.TOGETHER
    for i, (name, values) in enumerate(measures.baselines(results, split).items()):
        fractions = [Spread.of([values[hits(k)]]) for k in ks]
        series.append(_points(ks, fractions, title=name, style=-1 - i))

    def axis(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()

    return Plot(
        slug="hits",
        title=f"Top-k accuracy on {split}",
        alt=_told(f"Top-{ks[0]} accuracy", series, 0),
        note="End to end, every mention counted. Mean over seeds; bands are ± one standard "
        "deviation. Without a band: one seed, or nothing that was trained."
        + (" Grey: everything else in the table." if many else ""),
        figure=plot_forms.lines(series, "k (candidates looked at)", "accuracy, %", axis),
    )


def _told(what: str, series: Sequence[Series], at: int) -> str:
    """The alternative text: every line's value in words."""
    values = [f"{s.title} {s.mean[at]:.1f} %" for s in series if np.isfinite(s.mean[at])]
    return f"{what}: {', '.join(values)}."


def along_rows(results: Results, slug: str, name: str) -> Plot | None:
    """Top-1 on valid and on test against the number that each row's slug ends in."""
    rows = measures.trained(results)
    if not rows:
        return None
    x = [int(row.row.rsplit("_", 1)[1]) for row in rows]
    series = [
        _points(x, [spread(row, hits(1), split) for row in rows], title=split, style=i)
        for i, split in enumerate(("valid", "test"))
    ]

    def axis(axes: Axes) -> None:
        axes.set_xticks(x)

    return Plot(
        slug=slug,
        title=f"Top-1 accuracy by {name}",
        alt=" ".join(
            f"{row.title}: valid {series[0].mean[i]:.1f} %, test {series[1].mean[i]:.1f} %."
            for i, row in enumerate(rows)
        ),
        note="End to end. Bars are ± one standard deviation over seeds.",
        figure=plot_forms.lines(series, name, "Top-1 accuracy, %", axis, bars=True),
    )


def learning_curves(results: Results) -> Plot | None:
    """Valid score by epoch: seeds thin, their mean thick, a panel a row."""
    series = []
    for i, row in enumerate(results.rows):
        curves = [c for c in map(_valid_curve, row.runs) if len(c)]
        if not curves:
            continue
        longest = np.full((len(curves), max(map(len, curves))), np.nan)
        for line, curve in zip(longest, curves, strict=True):
            line[: len(curve)] = 100 * curve
        # Where a seed has stopped, the mean ends: a mean of those left would jump.
        mean = longest.mean(0)
        x = np.arange(1.0, longest.shape[1] + 1)
        none = np.full_like(mean, np.nan)
        series.append(Series(row.title, x, mean, none, style=i, thin=tuple(longest)))
    if not series:
        return None
    select_by = results.config.get("eval.select_by", "score")
    best = [
        f"{s.title} at best {max(np.nanmax(line) for line in s.thin):.1f} %"
        for s in series
        if any(np.isfinite(line).any() for line in s.thin)
    ]
    return Plot(
        slug="learning",
        title="Learning curves",
        alt=f"Score on valid by epoch: {', '.join(best)}.",
        note=f"The valid score that picks the checkpoint ({select_by}, answerable mentions), a "
        "panel a row: thin lines are seeds, the thick one is their mean, up to the epoch that "
        "every seed reached. Grey: the means of the other rows.",
        figure=plot_forms.panels(series, "epoch", "valid score, %"),
    )


def _valid_curve(run: Run) -> np.ndarray:
    """Valid scores by epoch, [epochs]."""
    curve = run.data.get("valid_curve") or []
    return np.array([np.nan if value is None else float(value) for value in curve], float)


def by_kind(results: Results) -> Plot | None:
    """Top-1 of every row on every kind of mention, a panel a kind."""
    split = results.split
    found = measures.sizes(results, split)
    kinds = {name: n for name, n in found.items() if name.startswith("kind:")}
    rows = measures.trained(results)
    if not kinds or not rows:
        return None
    values = {kind: [spread(row, hits(1), split, kind) for row in rows] for kind in kinds}
    height = 0.55 + sum(0.22 if "\n" not in _folded(row.title) else 0.31 for row in rows)
    with plot_forms.look():
        figure, shown = plot_forms.small_multiples(len(kinds), height, "Top-1 accuracy, %")
        for axes, kind in zip(shown, kinds, strict=True):
            _bars(axes, rows, results, values[kind])
            name = plot_forms.short(kind.removeprefix("kind:"))
            axes.set_title(f"{name} (n = {kinds[kind]})")
    told = [
        f"{kind.removeprefix('kind:')}: "
        + ", ".join(f"{r.title} {100 * v.mean:.1f} %" for r, v in zip(rows, line, strict=True) if v)
        for kind, line in values.items()
    ]
    return Plot(
        slug="kinds",
        title=f"Accuracy by kind of mention on {split}",
        alt=f"Top-1 accuracy by kind of mention. {'; '.join(told)}.",
        note="End to end. Error bars are ± one standard deviation over seeds.",
        figure=figure,
    )


def _bars(
    axes: Axes, rows: Sequence[Row], results: Results, values: Sequence[Spread | None]
) -> None:
    """Horizontal bars, the first row on top, each with its number."""
    order = {row.row: i for i, row in enumerate(results.rows)}
    for y, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is None:
            continue
        mean, sd = 100 * value.mean, 100 * (value.sd or 0.0)
        axes.barh(y, mean, color=plot_forms.colour(order[row.row]), height=0.7)
        if value.sd is not None:
            axes.errorbar(mean, y, xerr=sd, color=INK, capsize=2, linewidth=1)
        axes.text(mean + sd + 2, y, f"{mean:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [_folded(row.title) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 25))
    axes.grid(axis="y", visible=False)


def _folded(title: str) -> str:
    """The title beside a bar, in two lines at most."""
    return "\n".join(textwrap.wrap(plot_forms.short(title), 24)[:2])


def _with_edges(results: Results) -> Row | None:
    """The row that the others are held against where it has edges, else the first that has."""
    rows = [row for row in results.rows if any(run.data.get("edges") for run in row.runs)]
    return next((row for row in rows if row.row == results.against), rows[0] if rows else None)


def _edge_mean(row: Row, group: str, side: str) -> np.ndarray | None:
    """Mean over seeds of the mean weights, [L+1, 4]; NaN where a relation has no edge."""
    found = [
        np.array(run.data["edges"][group][side], float)  # None becomes NaN
        for run in row.runs
        if (run.data.get("edges") or {}).get(group, {}).get(side)
    ]
    return np.mean(found, axis=0) if found else None


def edge_weights(results: Results) -> Plot | None:
    """Mean weight of each relation by layer, gold and other candidates apart, a panel a kind."""
    row = _with_edges(results)
    if row is None:
        return None
    groups = list(next(run.data["edges"] for run in row.runs if run.data.get("edges")))
    told = []
    with plot_forms.look():
        figure, shown = plot_forms.small_multiples(
            len(groups), 2.3, "layers applied", "mean edge weight"
        )
        by_label: dict[str, Any] = {}
        for axes, group in zip(shown, groups, strict=True):
            axes.set_title(plot_forms.short(group.removeprefix("kind:")))
            for side in ("gold", "other"):
                mean = _edge_mean(row, group, side)
                if mean is None:
                    continue
                _edge_lines(axes, mean, side)
                ends = ", ".join(
                    f"{name} {mean[0, i]:.2f} to {mean[-1, i]:.2f}"
                    for i, name in enumerate(RELATIONS)
                    if np.isfinite(mean[[0, -1], i]).all()
                )
                told.append(f"{group}, {side} candidates: {ends}")
            by_label |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        # Sorted, each relation's two lines stand one above the other.
        labels = sorted(by_label)
        plot_forms.legend_below(figure, [by_label[name] for name in labels], labels)
    return Plot(
        slug="edges",
        title=f"Edge weights by layer: {row.title}",
        alt=f"Mean edge weights before the first and after the last layer. {'; '.join(told)}.",
        note="As the paper's Figure 5: mean weight of the existing edges of test mentions; after 0 "
        "layers, the initial edges. Solid, filled: the gold's edges; dashed, hollow: the other "
        "candidates'. First letter: the mention's side, second: the entity's; t text, v picture.",
        figure=figure,
    )


def _edge_lines(axes: Axes, mean: np.ndarray, side: str) -> None:
    gold = side == "gold"
    for i, name in enumerate(RELATIONS):
        axes.plot(
            range(len(mean)),
            mean[:, i],
            color=plot_forms.colour(i),
            marker=plot_forms.MARKERS[i],
            markerfacecolor=plot_forms.colour(i) if gold else "none",
            linestyle="-" if gold else (0, (4, 2)),
            label=f"{name}, {side}",
        )
    axes.set_xticks(range(len(mean)))
