"""The report's tables of accuracy. Beside them: `comparison_tables`, and `table_forms` to show any.

Everything is tie-aware and in percent, mean ± sample standard deviation over seeds.
"""

from collections.abc import Callable, Sequence

from rich.console import Console

from drin_jax.experiments import measures, table_forms
from drin_jax.experiments.measures import LEAK, SCOPES, Spread, hits, spread
from drin_jax.experiments.results import Results, Row
from drin_jax.experiments.significance import LEVEL
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
# Top-1 differs from the named row's: by the test over mentions alone, or over seeds as well.
MARKS = {(True, False): "△", (False, False): "▽", (True, True): "▲", (False, True): "▼"}
Values = list[Spread | None]


def main(results: Results) -> Table:
    """The suite's own table, laid out as in the paper where the paper has it."""
    return _LAYOUTS.get(results.suite, systems)(results)


def print_main(results: Results) -> None:
    """The suite's own table on stdout."""
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    console.print(table_forms.to_rich(main(results)))


def title_of(row: Row) -> str:
    """The row's title, which says where the gold was put into its graphs."""
    told = "GOLD IN GRAPH" in row.title or not measures.leaks(row)
    return row.title if told else f"{row.title}, GOLD IN GRAPH"


def best(values: Sequence[Spread | None]) -> str:
    """The largest mean as it is printed; nothing where there are fewer than two to compare."""
    known = [value.mean for value in values if value is not None]
    return f"{100 * max(known):.1f}" if len(known) > 1 else ""


def cell(value: Spread | None, top: str = "", mark: str = "", signed: bool = False) -> Cell:
    """One value, bold where its mean prints as `top`."""
    if value is None:
        return Cell(NOTHING)
    return Cell(value.percent(signed), best=f"{100 * value.mean:.1f}" == top, mark=mark)


def _grid(results: Results, columns: Callable[[Row], Values], marked: Sequence[str]) -> list[list]:
    """Cells of every row by what `columns` gives for it, the best of each column bold.

    Args:
        marked: for each column the subset of whose Top-1 it is, "" for none.
    """
    rows = measures.trained(results)
    values = {row.row: columns(row) for row in rows}
    # A leaking row is not the best of anything, unless the whole table leaks.
    honest = [row for row in rows if not measures.leaks(row)] or rows
    tops = [best([values[row.row][i] for row in honest]) for i in range(len(marked))]
    grid: list[list[Cell]] = []
    for row in results.rows:
        if not row.runs:
            grid.append([Cell(title_of(row)), Cell(measures.why_not(row))])
            continue
        cells = [
            cell(value, top if row in honest else "", _mark(results, row, subset))
            for value, top, subset in zip(values[row.row], tops, marked, strict=True)
        ]
        grid.append([Cell(title_of(row)), Cell(str(len(row.runs))), *cells])
    return grid


def _mark(results: Results, row: Row, subset: str) -> str:
    for c in results.comparisons:
        if (c.row, c.subset) == (row.row, subset) and c.p_holm is not None and c.p_holm < LEVEL:
            return MARKS[(c.difference or 0) > 0, c.significant]
    return ""


def legend(results: Results, rows: Sequence[Sequence[Cell]]) -> list[str]:
    """What the signs mean, where any stands in the rows."""
    if not any(c.mark for row in rows for c in row):
        return []
    against = results.row(results.against)
    name = title_of(against) if against else results.against
    return [
        f"▲ above, ▼ below {name} in Top-1: p < {LEVEL} both over mentions (permutation) and "
        "over seeds (Welch), Holm-corrected; △ ▽: over mentions only."
    ]


def _notes(results: Results, rows: Sequence[Sequence[Cell]], scope: str, n: int) -> list[str]:
    notes = [
        f"{n} mentions of {results.split}, {SCOPES[scope]}; mean ± sample standard deviation "
        "over seeds, in percent; best in bold."
    ]
    incomplete = [
        f"{title_of(r)}: {measures.why_not(r)}" for r in results.rows if r.runs and r.why_not
    ]
    return [*notes, *legend(results, rows), *incomplete]


def _leaking(results: Results, names: Sequence[str]) -> list[str]:
    """Column names, labelled where every row of the table was given the gold."""
    rows = measures.trained(results)
    label = f" ({LEAK})" if rows and all(map(measures.leaks, rows)) else ""
    return [name + label for name in names]


def _first(results: Results) -> str:
    return FIRST_COLUMN.get(results.suite, "system")


def systems(
    results: Results, subset: str = "all", scope: str = "end_to_end", split: str = ""
) -> Table:
    """Rows x Top-k and MRR; what needs no training stands on top."""
    split = split or results.split
    names = [*map(hits, results.ks), "mrr"]
    marked = subset if scope == "end_to_end" and split == results.split else ""
    rows = _grid(
        results,
        lambda row: [spread(row, name, split, subset, scope) for name in names],
        [marked, *[""] * (len(names) - 1)],
    )
    # Another first stage has other candidates, and so other baselines than the first row's.
    if results.suite != "retrieval":
        found = measures.baselines(results, split, subset, scope)
        untrained = [
            [Cell(name), Cell(NOTHING), *(Cell(f"{100 * values[m]:.1f}") for m in names)]
            for name, values in found.items()
            if all(m in values for m in names)
        ]
        rows = untrained + rows
    whole = (subset, scope, split) == ("all", "end_to_end", results.split)
    n = measures.sizes(results, split, scope).get(subset, 0)
    title = f"{subset}, {SCOPES[scope]}, {split} (n = {n})"
    return Table(
        slug="-".join(("table", split, subset.replace(":", "-"), scope)),
        title=_titled(results) if whole else title,
        head=[_first(results), "seeds", *_leaking(results, [*map(_top, results.ks), "MRR"])],
        rows=rows,
        notes=_notes(results, rows, scope, n) if whole else legend(results, rows),
    )


def _titled(results: Results) -> str:
    return results.title if results.split in results.title else f"{results.title} ({results.split})"


def _top(k: int) -> str:
    return f"Top-{k}"


def _layers(results: Results) -> Table:
    """L x valid and test."""
    names = [*map(hits, results.ks[:2]), "mrr"]
    columns = [(split, name) for split in ("valid", "test") for name in names]
    marked = ["all" if c == (results.split, hits(results.ks[0])) else "" for c in columns]
    rows = _grid(results, lambda row: [spread(row, name, split) for split, name in columns], marked)
    shown = [*map(_top, results.ks[:2]), "MRR"]
    head = [f"{split} {name}" for split in ("valid", "test") for name in shown]
    n = measures.sizes(results, results.split).get("all", 0)
    return Table(
        slug="table-main",
        title=results.title,
        head=[_first(results), "seeds", *_leaking(results, head)],
        rows=rows,
        notes=_notes(results, rows, "end_to_end", n),
    )


def _first_stages(results: Results) -> Table:
    """First stage x recall@k, and what the ranker makes of it."""
    recalls = {
        row.row: row.runs[0].data["splits"][results.split]["retrieval"]
        for row in measures.trained(results)
    }
    ks = sorted({name for found in recalls.values() for name in found}, key=_at)
    names = [*(hits(k) for k in results.ks[:3]), "mrr"]

    def columns(row: Row) -> Values:
        recall = [recalls[row.row].get(k) for k in ks]
        return [
            *(Spread(value, None, 1) if value is not None else None for value in recall),
            *(spread(row, name, results.split) for name in names),
        ]

    marked = [*[""] * len(ks), "all", *[""] * (len(names) - 1)]
    rows = _grid(results, columns, marked)
    for row in rows:  # retrieval has no seed to vary over
        row[2 : 2 + len(ks)] = [
            Cell(c.text.removesuffix(" ± n/a"), c.best) for c in row[2 : 2 + len(ks)]
        ]
    head = [*map(_top, results.ks[:3]), "MRR"]
    n = measures.sizes(results, results.split).get("all", 0)
    return Table(
        slug="table-main",
        title=_titled(results),
        head=[_first(results), "seeds", *ks, *_leaking(results, head)],
        rows=rows,
        notes=_notes(results, rows, "end_to_end", n),
    )


def _at(name: str) -> int:
    return int(name.split("@")[1])


def _gold_slots(results: Results) -> Table:
    """Each system without and with the gold in its graph, and the difference."""
    pairs: dict[str, dict[str, Row]] = {}
    for row in results.rows:
        name, slot = row.row.rsplit("_", 1)
        pairs.setdefault(name, {})[slot] = row
    names = {_top(results.ks[0]): hits(results.ks[0]), "MRR": "mrr"}
    head = [
        f"{name}: {slot}"
        for name in names
        for slot in ("never", f"upstream ({LEAK})", f"difference ({LEAK})")
    ]
    rows = []
    for pair in pairs.values():
        either = next(iter(pair.values()))
        title = either.title.split(",")[0]
        if not any(row.runs for row in pair.values()):
            rows.append([Cell(title), Cell(measures.why_not(either))])
            continue
        cells = [Cell(title), Cell(" / ".join(str(len(row.runs)) for row in pair.values()))]
        for name in names.values():
            honest, leaking = (
                spread(pair[slot], name, results.split) if slot in pair else None
                for slot in ("never", "upstream")
            )
            cells += [cell(honest), cell(leaking), cell(_gap(pair, name, results), signed=True)]
        rows.append(cells)
    n = measures.sizes(results, results.split).get("all", 0)
    notes = [*_notes(results, [], "end_to_end", n)[1:]]
    told = f"{n} mentions of {results.split}, {SCOPES['end_to_end']}; mean ± sample standard "
    notes.insert(0, told + "deviation over seeds, in percent; differences seed by seed.")
    return Table("table-main", results.title, [_first(results), "seeds", *head], rows, notes)


def _gap(pair: dict[str, Row], name: str, results: Results) -> Spread | None:
    """Upstream minus never, over the seeds that both have."""
    by_slot = {
        slot: {run.seed: found[name] for run in row.runs if (found := run.metrics(results.split))}
        for slot, row in pair.items()
    }
    never, upstream = by_slot.get("never", {}), by_slot.get("upstream", {})
    return Spread.of(upstream[seed] - never[seed] for seed in sorted({*never} & {*upstream}))


_LAYOUTS: dict[str, Callable[[Results], Table]] = {
    "table4": _layers,
    "retrieval": _first_stages,
    "gold_slot": _gold_slots,
}


def further(results: Results) -> list[Table]:
    """Rows x Top-k for every subset and scope, and for valid; without those that say it again."""
    own, whole = results.split, measures.sizes(results, results.split)
    out = [] if main(results).slug != "table-main" else [systems(results)]
    for subset, n in whole.items():
        if subset != "all" and n == whole["all"]:
            continue
        if subset != "all":
            out.append(systems(results, subset))
        answerable = measures.sizes(results, own, "answerable").get(subset, 0)
        if 0 < answerable < n:
            out.append(systems(results, subset, "answerable"))
    if own != "valid":
        out.append(systems(results, split="valid"))
    return out
