"""The report's tables: the suite's own and those of every subset, differences, published numbers.

Everything is tie-aware and in percent, mean ± sample standard deviation over seeds.
"""

import dataclasses
from collections.abc import Callable, Sequence

from rich.console import Console

from drin_jax.experiments import table_forms
from drin_jax.experiments.results import SCOPES, Results, Row, Spread, hits
from drin_jax.experiments.significance import LEVEL, METHOD, Comparison
from drin_jax.experiments.table_forms import Cell, Table

FIRST_COLUMN = {
    "table3": "DRIN",
    "table4": "layers",
    "table5": "objects from",
    "retrieval": "first stage",
    "learning_curve": "trained with",
    "choices": "configuration",
}
NOTHING = "–"
LEAK = "GOLD IN GRAPH: leaks, measures nothing else"
# Top-1 differs from the named row's: by the test over mentions alone, or over seeds as well.
MARKS = {(True, False): "△", (False, False): "▽", (True, True): "▲", (False, True): "▼"}


@dataclasses.dataclass(frozen=True)
class Column:
    """What a table shows of every row. `marked` is the subset of whose Top-1 it is, "" for none;
    `exact` numbers have no seed to vary over."""

    head: str
    value: Callable[[Row], Spread | None]
    marked: str = ""
    signed: bool = False
    exact: bool = False


def main(results: Results) -> Table:
    """The suite's own table, laid out as in the paper where the paper has it."""
    layout = {"table4": _layers, "retrieval": _first_stages, "gold_slot": _gold_slots}
    if results.suite not in layout:
        return systems(results)
    n = results.sizes(results.split).get("all", 0)
    columns = layout[results.suite](results)
    title = results.title if results.suite == "table4" else _titled(results)
    return _table(results, "table-main", title, columns, "end_to_end", n)


def print_main(results: Results) -> None:
    """The suite's own table on stdout."""
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    console.print(table_forms.to_rich(main(results)))


def _table(
    results: Results,
    slug: str,
    title: str,
    columns: Sequence[Column],
    scope: str,
    n: int,
    untrained: Sequence[Sequence[Cell]] = (),
    brief: bool = False,
) -> Table:
    """Rows x columns, the best of each column bold; `brief`: without what the main table tells."""
    run = results.trained
    # A leaking row is not the best of anything, unless the whole table leaks.
    honest = [row for row in run if not row.leaks] or run
    tops = [_best([column.value(row) for row in honest]) for column in columns]
    rows = [*untrained]
    for row in results.rows:
        if not row.runs:
            rows.append([Cell(row.full_title), Cell(row.remark)])
            continue
        cells = [
            _cell(row, column, top if row in honest else "", results)
            for column, top in zip(columns, tops, strict=True)
        ]
        rows.append([Cell(row.full_title), Cell(str(len(row.runs))), *cells])
    leak = f" ({LEAK})" if run and all(row.leaks for row in run) else ""
    heads = [column.head + ("" if column.exact else leak) for column in columns]
    return Table(
        slug=slug,
        title=title,
        head=[FIRST_COLUMN.get(results.suite, "system"), "seeds", *heads],
        rows=rows,
        notes=_legend(results, rows) if brief else _notes(results, rows, scope, n),
    )


def _best(values: Sequence[Spread | None]) -> str:
    """The largest mean as it is printed; nothing where there are fewer than two to compare."""
    known = [value.mean for value in values if value is not None]
    return f"{100 * max(known):.1f}" if len(known) > 1 else ""


def _cell(row: Row, column: Column, top: str, results: Results) -> Cell:
    value = column.value(row)
    if value is None:
        return Cell(NOTHING)
    text = f"{100 * value.mean:.1f}" if column.exact else value.percent(column.signed)
    best = f"{100 * value.mean:.1f}" == top
    return Cell(text, best, _mark(results, row, column.marked))


def _mark(results: Results, row: Row, subset: str) -> str:
    for c in results.comparisons:
        if (c.row, c.subset) == (row.row, subset) and c.p_holm is not None and c.p_holm < LEVEL:
            return MARKS[(c.difference or 0) > 0, c.significant]
    return ""


def _legend(results: Results, rows: Sequence[Sequence[Cell]]) -> list[str]:
    """What the signs mean, where any stands in the rows."""
    if not any(c.mark for row in rows for c in row):
        return []
    against = results.row(results.against)
    name = against.full_title if against else results.against
    return [
        f"▲ above, ▼ below {name} in Top-1: p < {LEVEL} both over mentions (permutation) and "
        "over seeds (Welch), Holm-corrected; △ ▽: over mentions only."
    ]


def _notes(results: Results, rows: Sequence[Sequence[Cell]], scope: str, n: int) -> list[str]:
    notes = [
        f"{n} mentions of {results.split}, {SCOPES[scope]}; mean ± sample standard deviation "
        "over seeds, in percent; best in bold."
    ]
    incomplete = [f"{r.full_title}: {r.remark}" for r in results.rows if r.runs and r.why_not]
    return [*notes, *_legend(results, rows), *incomplete]


def _titled(results: Results) -> str:
    return results.title if results.split in results.title else f"{results.title} ({results.split})"


def _metrics(
    results: Results,
    split: str,
    subset: str = "all",
    scope: str = "end_to_end",
    ks: int | None = None,
) -> list[Column]:
    """Top-k, of the first `ks` that are asked for, and MRR; marked where comparisons are made."""
    named = {f"Top-{k}": hits(k) for k in results.ks[:ks]} | {"MRR": "mrr"}
    compared = scope == "end_to_end" and split == results.split
    return [
        Column(
            head,
            lambda row, name=name: row.spread(name, split, subset, scope),  # type: ignore[misc]
            marked=subset if compared and i == 0 else "",
        )
        for i, (head, name) in enumerate(named.items())
    ]


def systems(
    results: Results, subset: str = "all", scope: str = "end_to_end", split: str = ""
) -> Table:
    """Rows x Top-k and MRR; what needs no training stands on top."""
    split = split or results.split
    names = [*map(hits, results.ks), "mrr"]
    untrained = []
    # Another first stage has other candidates, and so other baselines than the first row's.
    if results.suite != "retrieval":
        untrained = [
            [Cell(name), Cell(NOTHING), *(Cell(f"{100 * values[m]:.1f}") for m in names)]
            for name, values in results.baselines(split, subset, scope).items()
            if all(m in values for m in names)
        ]
    whole = (subset, scope, split) == ("all", "end_to_end", results.split)
    n = results.sizes(split, scope).get(subset, 0)
    return _table(
        results,
        slug="-".join(("table", split, subset.replace(":", "-"), scope)),
        title=_titled(results) if whole else f"{subset}, {SCOPES[scope]}, {split} (n = {n})",
        columns=_metrics(results, split, subset, scope),
        scope=scope,
        n=n,
        untrained=untrained,
        brief=not whole,
    )


def _layers(results: Results) -> list[Column]:
    """Valid and test."""
    return [
        dataclasses.replace(column, head=f"{split} {column.head}")
        for split in ("valid", "test")
        for column in _metrics(results, split, ks=2)
    ]


def _first_stages(results: Results) -> list[Column]:
    """Recall@k, and what the ranker makes of it."""
    recalls = {
        row.row: row.runs[0].data["splits"][results.split]["retrieval"] for row in results.trained
    }
    names = {name for found in recalls.values() for name in found}
    recall = [
        Column(
            name,
            lambda row, name=name: Spread.of(v for k, v in recalls[row.row].items() if k == name),  # type: ignore[misc]
            exact=True,
        )
        for name in sorted(names, key=lambda name: int(name.split("@")[1]))
    ]
    return recall + _metrics(results, results.split, ks=3)


def _gold_slots(results: Results) -> list[Column]:
    """Each system without and with the gold in its graph, and beside the latter the difference."""
    return [
        *_metrics(results, results.split, ks=1),
        *(
            Column(
                f"{head} more than never, seed by seed ({LEAK})",
                lambda row, name=name: _gap(results, row, name),  # type: ignore[misc]
                signed=True,
            )
            for head, name in ((f"Top-{results.ks[0]}", hits(results.ks[0])), ("MRR", "mrr"))
        ),
    ]


def _gap(results: Results, row: Row, name: str) -> Spread | None:
    """Upstream minus never, over the seeds that both have; None for the row that is never."""
    never = results.row(row.row.removesuffix("_upstream") + "_never")
    if never is None or never.row == row.row:
        return None
    by_row = [
        {run.seed: found[name] for run in one.runs if (found := run.metrics(results.split))}
        for one in (never, row)
    ]
    shared = sorted({*by_row[0]} & {*by_row[1]})
    return Spread.of(by_row[1][seed] - by_row[0][seed] for seed in shared)


def further(results: Results) -> list[Table]:
    """Rows x Top-k for every subset and scope, and for valid; without those that say it again."""
    own, whole = results.split, results.sizes(results.split)
    out = [] if main(results).slug != "table-main" else [systems(results)]
    for subset, n in whole.items():
        if subset != "all" and n == whole["all"]:
            continue
        if subset != "all":
            out.append(systems(results, subset))
        answerable = results.sizes(own, "answerable").get(subset, 0)
        if 0 < answerable < n:
            out.append(systems(results, subset, "answerable"))
    if own != "valid":
        out.append(systems(results, split="valid"))
    return out


def comparisons(results: Results) -> list[Table]:
    """Every row against the named one, a table a subset, all mentions first; without subsets that
    are empty or everything."""
    by_subset: dict[str, list[Comparison]] = {}
    whole = max((c.mentions for c in results.comparisons if c.subset == "all"), default=0)
    for c in results.comparisons:
        if c.subset == "all" or 0 < c.mentions < whole:
            by_subset.setdefault(c.subset, []).append(c)
    return [_comparison(results, subset, found) for subset, found in by_subset.items()]


def _comparison(results: Results, subset: str, found: list[Comparison]) -> Table:
    titles = {row.row: row.full_title for row in results.rows}
    against = titles.get(results.against, results.against)
    head = ["row", "seeds", "Top-1 difference", "95 % interval", "p mentions", "Holm", "Welch t"]
    rows = [
        [
            Cell(titles.get(c.row, c.row)),
            Cell(f"{c.seeds[0]} / {c.seeds[1]}"),
            Cell(_points(c.difference)),
            Cell(f"{_points(c.low)} to {_points(c.high)}"),
            Cell(_p(c.p)),
            Cell(_p(c.p_holm)),
            Cell("n/a" if c.t is None else f"{c.t:+.2f}"),
            Cell(_p(c.p_seeds)),
            Cell(_p(c.p_seeds_holm)),
        ]
        for c in found
    ]
    return Table(
        slug=f"against-{subset.replace(':', '-')}",
        title=f"Against {against}: {subset}, {found[0].split} (n = {found[0].mentions})",
        head=[*head, "p seeds", "Holm"],
        rows=rows,
        notes=[f"Points of Top-1, end to end; {METHOD}."] if subset == "all" else [],
    )


def _points(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:+.1f}"


def _p(value: float | None) -> str:
    if value is None:
        return "n/a"
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"


def published(results: Results) -> Table | None:
    """Published numbers beside ours, each with its own protocol; None where none are given."""
    if not results.published:
        return None
    ours = {}
    for row in results.rows:
        ours[row.row.casefold()] = ours[row.title.casefold()] = row
    rows = []
    for entry in results.published:
        own = ours.get(entry["system"].casefold())
        found = own.spread(entry["metric"], results.split) if own else None
        rows.append(
            [
                *(
                    Cell(entry[name])
                    for name in ("system", "dataset", "metric", "protocol", "source")
                ),
                Cell(f"{100 * entry['value']:.1f}"),
                Cell(found.percent() if found else NOTHING),
            ]
        )
    return Table(
        slug="published",
        title="Published numbers beside ours",
        head=["system", "data set", "metric", "protocol", "source", "published", "ours"],
        rows=rows,
        notes=[f"Ours: {results.protocol}. Numbers of different protocols do not compare."],
        text_columns=5,
    )
