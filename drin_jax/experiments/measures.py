"""What tables and plots read from the finished runs: one number of a row, over its seeds."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from drin_jax.evaluation.report import differing
from drin_jax.experiments.results import Results, Row
from drin_jax.experiments.significance import mean_and_deviation

SCOPES = {"end_to_end": "end to end", "answerable": "answerable"}
LEAK = "GOLD IN GRAPH: leaks, measures nothing else"


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over `n` seeds; with one seed there is no deviation."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of the values that are numbers; None where there are none."""
        kept = [value for value in values if math.isfinite(value)]
        mean, sd = mean_and_deviation(kept)
        return None if mean is None else cls(mean, sd, len(kept))

    def percent(self, signed: bool = False) -> str:
        """`85.2 ± 0.4`, both in percent; `85.2 ± n/a` over one seed."""
        mean = f"{100 * self.mean:+.1f}" if signed else f"{100 * self.mean:.1f}"
        return f"{mean} ± " + ("n/a" if self.sd is None else f"{100 * self.sd:.1f}")


def hits(k: int) -> str:
    """The metric's key, as in `drin_jax.evaluation.ranks.summarize`."""
    return f"hits@{k}"


def spread(
    row: Row, name: str, split: str, subset: str = "all", scope: str = "end_to_end"
) -> Spread | None:
    """One metric of a row over its seeds, as a fraction; None where no run has it."""
    return Spread.of(row.values(name, split, subset, scope))


def trained(results: Results) -> list[Row]:
    """The rows with at least one finished run."""
    return [row for row in results.rows if row.runs]


def sizes(results: Results, split: str, scope: str = "end_to_end") -> dict[str, int]:
    """Name -> mentions of every subset that has any in this split, in the store's order."""
    found: dict[str, int] = {}
    for row in trained(results):
        run = row.runs[0]
        for name in run.data["splits"].get(split, {}).get("subsets", {}):
            metrics = run.metrics(split, name, scope)
            if metrics:
                found.setdefault(name, int(metrics["n"]))
    return found


def baselines(
    results: Results, split: str, subset: str = "all", scope: str = "end_to_end"
) -> dict[str, dict[str, Any]]:
    """Name -> metrics of the systems that need no training, also in the readings of a tie that
    differ."""
    by_system = results.baselines.get(split, {}).get(subset, {}).get(scope, {})
    found: dict[str, dict[str, Any]] = {}
    for name, by_ties in by_system.items():
        if not by_ties["mean"]["n"]:
            continue
        found[name] = by_ties["mean"]
        found |= {f"{name}, {ties}": {**m} for ties, m in differing(by_ties).items()}
    return found


def seeds(results: Results) -> list[int]:
    """Every seed of any run, in order."""
    return sorted({run.seed for row in results.rows for run in row.runs})


def setting(row: Row, field: str) -> Any:
    """A config field of a row's runs (they differ in nothing but the seed); None without runs."""
    return row.runs[0].data["config"].get(field) if row.runs else None


def leaks(row: Row) -> bool:
    """Whether the row's graphs were given the gold."""
    return any(run.data.get("gold_in_graph") for run in row.runs)


def why_not(row: Row) -> str:
    """Why the row is not whole, in a line: of a failure without its traceback."""
    return (row.why_not or "not run").splitlines()[0]
