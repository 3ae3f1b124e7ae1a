"""The report's tables: the suite's own and those of every subset, differences, published numbers.

Everything is tie-aware and in percent, mean ± sample standard deviation over seeds.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from drin_jax.evaluation.report import SCOPES
from drin_jax.evaluation.tables import Best, Table
from drin_jax.experiments.results import GOLD_IN_GRAPH, NOTHING, Results, Row, Spread
from drin_jax.experiments.significance import LEVEL, METHOD, Comparison

FIRST_COLUMN = {
    "table3": "DRIN",
    "table4": "layers",
    "table5": "objects from",
    "retrieval": "first stage",
    "learning_curve": "trained with",
    "choices": "configuration",
}
LEAK = f"{GOLD_IN_GRAPH}: leaks, measures nothing else"


@dataclasses.dataclass(frozen=True)
class Column:
    """What a table shows of every row, by its slug. `marks`: row -> whether its Top-1 differs."""

    head: str
    values: Mapping[str, Spread | None]
    marks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    signed: bool = False


def main(results: Results) -> Table:
    """The suite's own table, laid out as in the paper where the paper has it."""
    if results.suite == "table4":
        both = ((s, column) for s in ("valid", "test") for column in _metrics(results, s, ks=2))
        return _table(results, [dataclasses.replace(c, head=f"{s} {c.head}") for s, c in both])
    if results.suite == "retrieval":
        return _table(results, [*_recalls(results), *_metrics(results, results.split, ks=3)])
    if results.suite == "gold_slot":
        return _table(results, [*_metrics(results, results.split, ks=1), *_gaps(results)])
    return systems(results)


def systems(
    results: Results, subset: str = "all", scope: str = "end_to_end", split: str = ""
) -> Table:
    """Rows x Top-k and MRR; what needs no training stands on top."""
    split = split or results.split
    names = [*(f"hits@{k}" for k in results.first["ks"]), "mrr"]
    untrained = []
    # Another first stage has other candidates, and so other baselines than the first row's.
    if results.suite != "retrieval":
        untrained = [
            [name, NOTHING, *(Spread(values[m]).percent() for m in names)]
            for name, values in results.baselines(split, subset, scope).items()
            if all(m in values for m in names)
        ]
    n = results.sizes(split, scope).get(subset, 0)
    whole = (subset, scope, split) == ("all", "end_to_end", results.split)
    title = "" if whole else f"{subset}, {SCOPES[scope]}, {split} (n = {n})"
    return _table(results, _metrics(results, split, subset, scope), title, untrained)


def further(results: Results) -> list[Table]:
    """Rows x Top-k for every subset and scope, and for valid; without those that say it again."""
    own, whole = results.split, results.sizes(results.split)
    out = [systems(results)] if results.suite in ("table4", "retrieval", "gold_slot") else []
    for subset, n in whole.items():
        if subset != "all" and n == whole["all"]:
            continue
        if subset != "all":
            out.append(systems(results, subset))
        if 0 < results.sizes(own, "answerable").get(subset, 0) < n:
            out.append(systems(results, subset, "answerable"))
    valid = [] if own == "valid" else [systems(results, split="valid")]
    return [*out, *valid, *together(results)]


def together(results: Results) -> list[Table]:
    """Each row's seeds as one system, by the mean of their scores; none where there is one seed."""
    split, rows = results.split, []
    for row in results.trained:
        found = row.runs[-1].data.get("together", {}).get(split)
        for subset in ("all", "clean"):
            if found and subset in found["subsets"]:
                (metrics,) = found["subsets"][subset]["end_to_end"].values()
                own = (metrics["mean"].get(name) for name in _names(results))
                values = [NOTHING if value is None else f"{100 * value:.1f}" for value in own]
                rows.append([row.title, subset, str(found["seeds"]), *values])
    head = [
        FIRST_COLUMN.get(results.suite, "system"),
        "mentions",
        "seeds",
        *_names(results).values(),
    ]
    title = f"{split}, the seeds of a row as one system: the mean of their scores"
    return [Table(title, head, rows, words=2)] if rows else []


def _names(results: Results) -> dict[str, str]:
    """Metric -> its name in tables."""
    return {f"hits@{k}": f"Top-{k}" for k in results.first["ks"]} | {"mrr": "MRR"}


def _table(
    results: Results,
    columns: Sequence[Column],
    title: str = "",
    untrained: Sequence[Sequence[str]] = (),
) -> Table:
    """Rows x columns, the best of each column bold; below it what the marks in it mean, and
    without a title, as the suite's table, what its numbers are."""
    # A leaking row is not the best of anything, unless the whole table leaks.
    honest = [row for row in results.trained if not row.leaks] or results.trained
    rows = [*untrained]
    for row in results.rows:
        cells = [row.why_not]
        if row.runs:
            cells = [str(len(row.runs)), *(_cell(row, column, honest) for column in columns)]
        rows.append([row.title, *cells])
    n, notes = results.sizes(results.split).get("all", 0), []
    if not title:
        notes = [
            f"{n} mentions of {results.split}, {SCOPES['end_to_end']}; mean ± sample standard "
            "deviation over seeds, in percent; best in bold.",
            *(f"{row.title}: {row.why_not}" for row in results.trained if row.why_not),
        ]
    head = [FIRST_COLUMN.get(results.suite, "system"), "seeds", *(c.head for c in columns)]
    if any(mark in cell for row in rows for cell in row for mark in "▲▼△▽"):
        against = results.row(results.against)
        legend = (
            f"▲ above, ▼ below {against.title if against else results.against} in Top-1: p < "
            f"{LEVEL} both over mentions (permutation) and over seeds (Welch), Holm-corrected; "
            "△ ▽: over mentions only."
        )
        notes = [*notes[:1], legend, *notes[1:]]
    told = any(results.split in text for text in (results.title, *head))
    own = results.title if told else f"{results.title} ({results.split})"
    return Table(title or own, head, rows, notes)


def _cell(row: Row, column: Column, honest: Sequence[Row]) -> str:
    value = column.values.get(row.row)
    if value is None:
        return NOTHING
    text = " ".join(filter(None, (value.percent(column.signed), column.marks.get(row.row))))
    rivals = [f"{100 * v.mean:.1f}" for one in honest if (v := column.values.get(one.row))]
    # What prints as the largest mean is best, where there is something to compare it with.
    best = row in honest and len(rivals) > 1 and f"{100 * value.mean:.1f}" == max(rivals, key=float)
    return Best(text) if best else text


def _metrics(
    results: Results,
    split: str,
    subset: str = "all",
    scope: str = "end_to_end",
    ks: int | None = None,
) -> list[Column]:
    """Top-k, of the first `ks` that are asked for, and MRR; marked where comparisons are made."""
    named = {f"Top-{k}": f"hits@{k}" for k in results.first["ks"][:ks]} | {"MRR": "mrr"}
    leak = f" ({LEAK})" if all(row.leaks for row in results.trained) else ""
    compared = scope == "end_to_end" and split == results.split
    marks = {c.row: c.mark for c in results.comparisons if compared and c.subset == subset}
    return [
        Column(
            head + leak,
            {row.row: row.spread(name, split, subset, scope) for row in results.trained},
            marks=marks if i == 0 else {},
        )
        for i, (head, name) in enumerate(named.items())
    ]


def _recalls(results: Results) -> list[Column]:
    """Recall@k of each row's first stage, which no seed moves."""
    recalls = {
        row.row: row.runs[0].data["splits"][results.split]["retrieval"] for row in results.trained
    }
    names = {name for found in recalls.values() for name in found}
    return [
        Column(name, {row: Spread(found[name]) for row, found in recalls.items() if name in found})
        for name in sorted(names, key=lambda name: int(name.split("@")[1]))
    ]


def _gaps(results: Results) -> list[Column]:
    """What each system gains by the gold in its graph, over the seeds that it has both ways."""

    def gap(row: Row, name: str) -> Spread | None:
        never = results.row(row.row.removesuffix("_upstream") + "_never")
        if never is None or never.row == row.row:
            return None
        honest, leaking = (
            {run.seed: m[name] for run in one.runs if name in (m := run.metrics(results.split))}
            for one in (never, row)
        )
        return Spread.of(leaking[seed] - honest[seed] for seed in sorted({*honest} & {*leaking}))

    k = results.first["ks"][0]
    return [
        Column(
            f"{head} more than never, seed by seed ({LEAK})",
            {row.row: gap(row, name) for row in results.trained},
            signed=True,
        )
        for head, name in ((f"Top-{k}", f"hits@{k}"), ("MRR", "mrr"))
    ]


def comparisons(results: Results) -> list[Table]:
    """Every row against the named one, a table a subset, all mentions first; without subsets that
    are empty or everything."""
    by_subset: dict[str, list[Comparison]] = {}
    whole = max((c.mentions for c in results.comparisons if c.subset == "all"), default=0)
    for c in results.comparisons:
        if c.subset == "all" or 0 < c.mentions < whole:
            by_subset.setdefault(c.subset, []).append(c)
    titles = {row.row: row.title for row in results.rows}
    against = titles.get(results.against, results.against)
    head = ["row", "seeds", "Top-1 difference", "95 % interval", "p mentions", "Holm", "Welch t"]
    return [
        Table(
            f"Against {against}: {subset}, {results.split} (n = {found[0].mentions})",
            head=[*head, "p seeds", "Holm"],
            rows=[
                [
                    titles.get(c.row, c.row),
                    f"{c.seeds[0]} / {c.seeds[1]}",
                    _number(100 * c.difference, "+.1f"),
                    f"{_number(100 * c.low, '+.1f')} to {_number(100 * c.high, '+.1f')}",
                    *(_p(c.p), _p(c.p_holm), _number(c.t, "+.2f"), _p(c.p_seeds)),
                    _p(c.p_seeds_holm),
                ]
                for c in found
            ],
            notes=[f"Points of Top-1, end to end; {METHOD}."] if subset == "all" else [],
        )
        for subset, found in by_subset.items()
    ]


def _number(value: float, form: str) -> str:
    return "n/a" if math.isnan(value) else format(value, form)


def _p(value: float) -> str:
    return "< 0.001" if value < 1e-3 else _number(value, ".3f")


def published(results: Results) -> list[Table]:
    """Published numbers beside ours, each with its own protocol; no table where none are given."""
    ours = {name.casefold(): row for row in results.rows for name in (row.row, row.title)}
    rows = []
    for entry in results.published:
        row = ours.get(entry["system"].casefold())
        found = row.spread(entry["metric"], results.split) if row else None
        told = [entry[name] for name in ("system", "dataset", "metric", "protocol", "source")]
        theirs = Spread(entry["value"]).percent()
        rows.append([*told, theirs, found.percent() if found else NOTHING])
    table = Table(
        "Published numbers beside ours",
        head=["system", "data set", "metric", "protocol", "source", "published", "ours"],
        rows=rows,
        notes=[
            f"Ours: {results.first['protocol']}. Numbers of different protocols do not compare."
        ],
        words=5,
    )
    return [table] if rows else []
