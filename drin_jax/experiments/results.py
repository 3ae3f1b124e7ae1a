"""What a suite left in its workdir, read back: the report is made of this and nothing else.

WORKDIR/suite.json                      suite, config, rows, seeds, published numbers
WORKDIR/runs/ROW/seedK/run.json         one finished run, with its scores and ranks as .npy
WORKDIR/runs/ROW/failure.txt            why a row has no (or not all) runs
WORKDIR/{baselines,audit,environment}.json, groups_SPLIT.npz
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import files
from data_pipeline.schema import UserError
from drin_jax.evaluation.report import readings
from drin_jax.experiments.significance import Comparison, compare

SUITE_JSON = "suite.json"
RUN_JSON = "run.json"
FAILURE = "failure.txt"
LONGEST_NAME = 200  # of a row, and so of its folder
GOLD_IN_GRAPH = "GOLD IN GRAPH"
NOTHING = "–"  # where there is no number


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over `n` seeds; with one seed there is no
    deviation, and with none the number is one that no seed moves."""

    mean: float
    sd: float | None = None
    n: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of the values that are numbers; None where there are none."""
        kept = [value for value in values if math.isfinite(value)]
        if not kept:
            return None
        sd = float(np.std(kept, ddof=1)) if len(kept) > 1 else None
        return cls(float(np.mean(kept)), sd, len(kept))

    def percent(self, signed: bool = False) -> str:
        """`85.2 ± 0.4`, both in percent; `85.2 ± n/a` over one seed, `85.2` over none."""
        mean = f"{100 * self.mean:+.1f}" if signed else f"{100 * self.mean:.1f}"
        deviation = "n/a" if self.sd is None else f"{100 * self.sd:.1f}"
        return f"{mean} ± {deviation}" if self.n else mean


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished training run. `data` is its run.json."""

    seed: int
    folder: Path
    data: dict[str, Any]

    def ranks(self, split: str) -> np.ndarray:
        """[n] float32: the gold's rank from 1, ties at their mean; infinite where not ranked."""
        path = self.folder / f"ranks_{split}.npy"
        try:
            return np.load(path)
        except (OSError, ValueError) as error:
            message = f"{path}: unreadable ({error}); delete its folder to run it again"
            raise UserError(message) from None

    def metrics(
        self, split: str, subset: str = "all", scope: str = "end_to_end"
    ) -> dict[str, float]:
        """`n`, `hits@k` and `mrr` as fractions; empty where the split has no such mention."""
        subsets = self.data["splits"].get(split, {}).get("subsets", {})
        if subset not in subsets:
            return {}
        metrics: dict[str, float] = subsets[subset][scope][self.data["system"]]["mean"]
        return metrics if metrics["n"] else {}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the suite's table with its finished runs, by seed.

    `title` says where the gold was put into the row's graphs, `why_not` in a line what is missing:
    "not run: …" or "failed: …". Empty: it is whole.
    """

    row: str
    title: str
    runs: list[Run]
    why_not: str = ""

    def spread(
        self, name: str, split: str, subset: str = "all", scope: str = "end_to_end"
    ) -> Spread | None:
        """One metric over the seeds, as a fraction; None where no run has it."""
        found = (run.metrics(split, subset, scope) for run in self.runs)
        return Spread.of(metrics[name] for metrics in found if name in metrics)

    @property
    def leaks(self) -> bool:
        """Whether the row's graphs were given the gold."""
        return any(run.data.get("gold_in_graph") for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Results:
    """A suite's results: what suite.json says of it, its rows, and what lies beside them.

    `split` is the one it is judged on; `untrained` is split -> subset -> scope -> system -> ties ->
    metrics of what needs no training.
    """

    suite: str
    title: str
    against: str
    config: dict[str, Any]
    rows: list[Row]
    untrained: dict[str, Any]
    comparisons: list[Comparison]
    audit: list[dict[str, Any]]
    environment: dict[str, Any]
    published: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    split: str = "test"
    command: str = ""

    @property
    def trained(self) -> list[Row]:
        """The rows with at least one finished run."""
        return [row for row in self.rows if row.runs]

    @property
    def first(self) -> dict[str, Any]:
        """The first finished run: what is equal in all stands there (`ks`, `protocol`, counts)."""
        return self.trained[0].runs[0].data

    def row(self, name: str) -> Row | None:
        """The row of this slug."""
        return next((row for row in self.rows if row.row == name), None)

    def sizes(self, split: str, scope: str = "end_to_end") -> dict[str, int]:
        """Name -> mentions of every subset that has any in this split, in the store's order."""
        found: dict[str, int] = {}
        for run in (row.runs[0] for row in self.trained):
            for name in run.data["splits"].get(split, {}).get("subsets", {}):
                if metrics := run.metrics(split, name, scope):
                    found.setdefault(name, int(metrics["n"]))
        return found

    def baselines(
        self, split: str, subset: str = "all", scope: str = "end_to_end"
    ) -> dict[str, Mapping[str, float]]:
        """Name -> metrics of the systems that need no training, also in the readings of a tie that
        differ."""
        by_system = self.untrained.get(split, {}).get(subset, {}).get(scope, {})
        found = [readings(name, ties) for name, ties in by_system.items() if ties["mean"]["n"]]
        return {name: metrics for each in found for name, metrics in each.items()}


def load(workdir: Path) -> Results:
    """Read a suite's workdir; UserError for one without a finished run, or a damaged file."""
    suite = read_json(workdir / SUITE_JSON)
    try:
        rows = [_row(workdir, fields) for fields in suite["rows"]]
        if not any(row.runs for row in rows):
            why = "".join(f"; {row.row}: {row.why_not}" for row in rows[:1])
            raise UserError(f"{workdir} has no finished run to report{why}")
        baselines = read_json(workdir / "baselines.json", {})
        told = ("suite", "title", "against", "config", "published", "split", "command")
        return Results(
            **{name: suite[name] for name in told if name in suite},
            rows=rows,
            untrained={name: result["subsets"] for name, result in baselines.items()},
            comparisons=_comparisons(workdir, rows, suite["against"], suite["split"]),
            audit=read_json(workdir / "audit.json", []),
            environment=read_json(workdir / "environment.json", {}),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{workdir}: its files do not fit this program ({error!r} is missing or odd); use a "
            "new --workdir"
        ) from None


def read_json(path: Path, default: Any = None) -> Any:
    """The file's content, `default` where there is no file; UserError where it is damaged."""
    if default is not None and not path.is_file():
        return default
    missing = "no such file; run python -m drin_jax.experiments SUITE first"
    return files.read_json(path, "delete it to make it anew", missing, object)


def run_folders(workdir: Path, row: str) -> dict[int, Path]:
    """Seed -> folder of the row's finished runs."""
    found = (workdir / "runs" / row).glob(f"seed*/{RUN_JSON}")
    seeds = {path.parent.name.removeprefix("seed"): path.parent for path in found}
    return dict(sorted((int(seed), path) for seed, path in seeds.items() if seed.isdigit()))


def _row(workdir: Path, fields: Mapping[str, Any]) -> Row:
    name, title = fields["row"], fields["title"]
    if len(Path(name).parts) != 1 or name == ".." or len(name) > LONGEST_NAME:
        raise UserError(f"{workdir / SUITE_JSON}: {name!r:.99} names no row; use a new --workdir")
    runs = [
        Run(seed, folder, read_json(folder / RUN_JSON))
        for seed, folder in run_folders(workdir, name).items()
    ]
    why_not = f"not run: {fields['why_not']}" if fields.get("why_not") else ""
    failure = workdir / "runs" / name / FAILURE
    if failure.is_file():
        why_not = f"failed: {failure.read_text().partition(chr(10))[0]}"
    row = Row(name, title, runs, why_not or ("" if runs else "not run yet"))
    if row.leaks and GOLD_IN_GRAPH not in title:
        return dataclasses.replace(row, title=f"{title}, {GOLD_IN_GRAPH}")
    return row


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
        for comparison in compare(hits, against, name, chosen)
    ]


FIELDS = ("system", "dataset", "metric", "value", "protocol", "source")


def read_published(path: Path) -> list[dict[str, Any]]:
    """Published numbers to stand beside ours. None are bundled: each comes with its source.

    The file is a list of objects with these fields, all but `value`, a fraction, texts:

        [{"system": "the row's slug or title", "dataset": "as in the paper", "metric": "hits@1",
          "value": 0.5, "protocol": "candidates, gold in graph or not", "source": "paper, table"}]

    `metric` is `hits@K` or `mrr`. What was measured under another protocol than ours is shown with
    its own and compared with nothing.

    Raises:
        UserError: naming the entry that is odd.
    """
    form = f"--published takes a list of objects {{{', '.join(FIELDS)}}}"
    entries = files.read_json(path, form, missing=f"no such file; {form}", form=list)
    for i, entry in enumerate(entries):
        if problem := _problem(entry if isinstance(entry, dict) else {}):
            raise UserError(f"--published {path}: entry {i + 1} {problem}")
    return entries


def _problem(entry: Mapping[str, Any]) -> str:
    value, metric = entry.get("value"), entry.get("metric")
    for field in FIELDS:
        text = str(value) if field == "value" else entry.get(field)
        if not isinstance(text, str) or not text.strip():
            return f"has no text in {field!r}; it needs {', '.join(FIELDS)}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return f"has the value {value!r}; write a fraction from 0 to 1"
    if metric != "mrr" and not str(metric).removeprefix("hits@").isdigit():
        return f"has the metric {metric!r}; known are mrr, hits@K"
    return ""
