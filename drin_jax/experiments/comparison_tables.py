"""Tables of what is held against something: rows against one row, and published numbers."""

from drin_jax.experiments import measures
from drin_jax.experiments.accuracy_tables import NOTHING, title_of
from drin_jax.experiments.results import Results
from drin_jax.experiments.significance import METHOD, Comparison
from drin_jax.experiments.table_forms import Cell, Table


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
    titles = {row.row: title_of(row) for row in results.rows}
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
        found = measures.spread(own, entry["metric"], results.split) if own else None
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
