"""What a suite left in its workdir, read back: the report is made of this and nothing else.

WORKDIR/suite.json                      suite, config, rows, seeds
WORKDIR/runs/ROW/seedK/run.json         one finished run, with its scores and ranks as .npy
WORKDIR/runs/ROW/failure.txt            why a row has no (or not all) runs
WORKDIR/{baselines,audit,environment}.json, groups_SPLIT.npz
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.schema import UserError
from drin_jax.evaluation.report import differing
from drin_jax.experiments.significance import Comparison, compare, mean_and_deviation

SCOPES = {"end_to_end": "end to end", "answerable": "answerable"}
SUITE_JSON = "suite.json"
RUN_JSON = "run.json"
FAILURE = "failure.txt"


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


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished training run. `data` is its run.json."""

    row: str
    seed: int
    folder: Path
    data: dict[str, Any]

    def scores(self, split: str) -> np.ndarray:
        """[n, r] float32, the split's mentions in file order."""
        return _load_array(self.folder / f"scores_{split}.npy")

    def ranks(self, split: str) -> np.ndarray:
        """[n] float32: the gold's rank from 1, ties at their mean; infinite where not ranked."""
        return _load_array(self.folder / f"ranks_{split}.npy")

    def metrics(
        self, split: str, subset: str = "all", scope: str = "end_to_end", ties: str = "mean"
    ) -> dict[str, float] | None:
        """`n`, `hits@k` and `mrr` as fractions; None where the split has no such mention."""
        try:
            found = self.data["splits"][split]["subsets"][subset][scope]
            metrics: dict[str, float] = found[self.data["system"]][ties]
        except KeyError:
            return None
        return metrics if metrics["n"] else None


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the suite's table with its finished runs, by seed.

    `why_not` says what is missing: "not run: …" or "failed: …". None: it is whole.
    """

    row: str
    title: str
    runs: list[Run]
    why_not: str | None

    def spread(
        self, name: str, split: str, subset: str = "all", scope: str = "end_to_end"
    ) -> Spread | None:
        """One metric over the seeds, as a fraction; None where no run has it."""
        found = (run.metrics(split, subset, scope) for run in self.runs)
        return Spread.of(m[name] for m in found if m is not None and name in m)

    @property
    def leaks(self) -> bool:
        """Whether the row's graphs were given the gold."""
        return any(run.data.get("gold_in_graph") for run in self.runs)

    @property
    def full_title(self) -> str:
        """The title, which says where the gold was put into the row's graphs."""
        told = "GOLD IN GRAPH" in self.title or not self.leaks
        return self.title if told else f"{self.title}, GOLD IN GRAPH"

    @property
    def remark(self) -> str:
        """Why the row is not whole, in a line: of a failure without its traceback."""
        return (self.why_not or "not run").splitlines()[0]


@dataclasses.dataclass(frozen=True)
class Results:
    """A suite's results. `split` is the one it is judged on.

    `counts` is split -> counts of mentions; `untrained` split -> subset -> scope -> system -> ties
    -> metrics of what needs no training.
    """

    suite: str
    title: str
    rows: list[Row]
    against: str
    config: dict[str, Any]
    ks: list[int]
    protocol: str
    counts: dict[str, dict[str, int]]
    untrained: dict[str, Any]
    comparisons: list[Comparison]
    audit: list[dict[str, Any]]
    environment: dict[str, Any]
    published: list[dict[str, Any]]
    split: str = "test"
    command: str = ""

    def row(self, name: str) -> Row | None:
        """The row of this slug."""
        return next((row for row in self.rows if row.row == name), None)

    @property
    def trained(self) -> list[Row]:
        """The rows with at least one finished run."""
        return [row for row in self.rows if row.runs]

    def sizes(self, split: str, scope: str = "end_to_end") -> dict[str, int]:
        """Name -> mentions of every subset that has any in this split, in the store's order."""
        found: dict[str, int] = {}
        for row in self.trained:
            run = row.runs[0]
            for name in run.data["splits"].get(split, {}).get("subsets", {}):
                metrics = run.metrics(split, name, scope)
                if metrics:
                    found.setdefault(name, int(metrics["n"]))
        return found

    def baselines(
        self, split: str, subset: str = "all", scope: str = "end_to_end"
    ) -> dict[str, dict[str, Any]]:
        """Name -> metrics of the systems that need no training, also in the readings of a tie that
        differ."""
        by_system = self.untrained.get(split, {}).get(subset, {}).get(scope, {})
        found: dict[str, dict[str, Any]] = {}
        for name, by_ties in by_system.items():
            if not by_ties["mean"]["n"]:
                continue
            found[name] = by_ties["mean"]
            found |= {f"{name}, {ties}": {**m} for ties, m in differing(by_ties).items()}
        return found


def load(workdir: Path) -> Results:
    """Read a suite's workdir; UserError for one without a finished run, or a damaged file."""
    path = workdir / SUITE_JSON
    if not path.is_file():
        raise UserError(f"{workdir} holds no suite; run python -m drin_jax.experiments SUITE first")
    suite = read_json(path)
    try:
        rows = [_row(workdir, fields) for fields in suite["rows"]]
        runs = [run for row in rows for run in row.runs]
        if not runs:
            raise UserError(
                f"{workdir} has no finished run to report; {rows[0].row}: {rows[0].why_not}"
            )
        first, split = runs[0].data, suite["split"]
        base = _optional(workdir / "baselines.json", {})
        return Results(
            suite=suite["suite"],
            title=suite["title"],
            rows=rows,
            against=suite["against"],
            config=suite["config"],
            ks=first["ks"],
            protocol=first["protocol"],
            counts={name: result["counts"] for name, result in first["splits"].items()},
            untrained={name: result["subsets"] for name, result in base.items()},
            comparisons=_comparisons(workdir, rows, suite["against"], split),
            audit=_optional(workdir / "audit.json", []),
            environment=_optional(workdir / "environment.json", {}),
            published=suite.get("published", []),
            split=split,
            command=suite.get("command", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{workdir}: its files do not fit this program ({error!r} is missing or odd); use a "
            "new --workdir"
        ) from None


def read_json(path: Path) -> Any:
    """The file's content; UserError where it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error}); delete it to make it anew") from None


def run_folders(workdir: Path, row: str) -> dict[int, Path]:
    """Seed -> folder of the row's finished runs."""
    found = (workdir / "runs" / row).glob(f"seed*/{RUN_JSON}")
    seeds = {path.parent.name.removeprefix("seed"): path.parent for path in found}
    return {int(seed): seeds[seed] for seed in sorted(seeds, key=_number) if seed.isdigit()}


def _number(seed: str) -> int:
    return int(seed) if seed.isdigit() else -1


def _row(workdir: Path, fields: Mapping[str, Any]) -> Row:
    name = fields["row"]
    runs = [
        Run(name, seed, folder, read_json(folder / RUN_JSON))
        for seed, folder in run_folders(workdir, name).items()
    ]
    why_not = f"not run: {fields['why_not']}" if fields.get("why_not") else None
    failure = workdir / "runs" / name / FAILURE
    if failure.is_file():
        why_not = f"failed: {failure.read_text().partition(chr(10))[0]}"
    elif not runs and why_not is None:
        why_not = "not run yet"
    return Row(name, fields["title"], runs, why_not)


def _comparisons(workdir: Path, rows: list[Row], against: str, split: str) -> list[Comparison]:
    """Every row against one, over all mentions and over every group that has any."""
    hits = {
        row.row: np.stack([run.ranks(split) <= 1 for run in row.runs]) for row in rows if row.runs
    }
    subsets: dict[str, np.ndarray | None] = {"all": None}
    groups = workdir / f"groups_{split}.npz"
    if groups.is_file():
        with np.load(groups) as content:
            subsets |= {name: content[name] for name in content.files if content[name].any()}
    return [
        comparison
        for name, chosen in subsets.items()
        for comparison in compare(hits, against, split=split, subset=name, chosen=chosen)
    ]


def _optional(path: Path, default: Any) -> Any:
    return read_json(path) if path.is_file() else default


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path)
    except (OSError, ValueError) as error:
        message = f"{path}: unreadable ({error}); delete its folder to run it again"
        raise UserError(message) from None
