"""What a suite left in its workdir, read back: the report is made of this and nothing else.

WORKDIR/suite.json                      suite, config, rows, seeds
WORKDIR/runs/ROW/seedK/run.json         one finished run, with its scores and ranks as .npy
WORKDIR/runs/ROW/failure.txt            why a row has no (or not all) runs
WORKDIR/{baselines,audit,environment}.json, groups_SPLIT.npz
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.schema import UserError
from drin_jax.experiments.significance import Comparison, compare

SUITE_JSON = "suite.json"
RUN_JSON = "run.json"
FAILURE = "failure.txt"


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

    def values(
        self,
        metric: str = "hits@1",
        split: str = "test",
        subset: str = "all",
        scope: str = "end_to_end",
        ties: str = "mean",
    ) -> list[float]:
        """The metric of each finished run, as a fraction; of the runs that have it."""
        found = (run.metrics(split, subset, scope, ties) for run in self.runs)
        return [m[metric] for m in found if m is not None and metric in m]


@dataclasses.dataclass(frozen=True)
class Results:
    """A suite's results. `split` is the one it is judged on.

    `counts` is split -> counts of mentions; `baselines` split -> subset -> scope -> system -> ties
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
    baselines: dict[str, Any]
    comparisons: list[Comparison]
    audit: list[dict[str, Any]]
    environment: dict[str, Any]
    published: list[dict[str, Any]]
    split: str = "test"
    command: str = ""

    def row(self, name: str) -> Row | None:
        """The row of this slug."""
        return next((row for row in self.rows if row.row == name), None)


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
            baselines={name: result["subsets"] for name, result in base.items()},
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
