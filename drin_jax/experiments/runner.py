"""Runs a suite: trains what is not finished, row by row, and leaves what `results` reads.

A run's folder is written under another name and renamed, so it is there whole or not at all; a
training that was killed goes on from its checkpoint. A row that fails does not stop the others.
"""

import dataclasses
import math
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.config import COMPARABLE, check, deciding, flat
from drin_jax.experiments import seed_runs, surroundings
from drin_jax.experiments.records import Recorder
from drin_jax.experiments.results import FAILURE, SUITE_JSON, read_json, run_folders
from drin_jax.experiments.stores import Stores
from drin_jax.experiments.suites import RowPlan, Suite
from drin_jax.training.loop import NotFinite
from drin_jax.training.session import Session
from drin_jax.training.setup import LEAK_WARNING, set_up
from drin_jax.workdir import claim

# A suite may go on with other values of these; all else decides what its rows are.
FREE_FIELDS = deciding(*COMPARABLE) | {"seed"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the command line asks for beside suite and config.

    Args:
        rows: slugs of the rows to run; empty: all.
        against: the row to test the others against; empty: the suite's own.
        published: rows as `published.read` gives them; None: those given before.
        command: the command line, told in the report.
    """

    seeds: Sequence[int]
    rows: Sequence[str] = ()
    against: str = ""
    published: list[dict[str, Any]] | None = None
    command: str = ""


class Runner:
    """One suite over one config in one workdir."""

    def __init__(self, suite: Suite, config: ConfigDict, workdir: Path, wanted: Choice):
        check(config)
        self.suite, self.config, self.workdir, self.wanted = suite, config, workdir, wanted
        self.plans = {plan.row: plan for plan in suite.plan(config)}
        for name in (*wanted.rows, *([wanted.against] if wanted.against else [])):
            if name not in self.plans:
                known = ", ".join(self.plans)
                raise UserError(f"{suite.name} has no row {name!r}; its rows are {known}")
        claim(workdir, config, FREE_FIELDS, suite=suite.name)
        self.against = wanted.against or suite.default_against(config)
        self.splits = ("valid",) if suite.split == "valid" else ("valid", "test")
        self.chosen = [self.plans[name] for name in wanted.rows or self.plans]
        self.why_not = {name: plan.why_not for name, plan in self.plans.items()}
        configs = {plan.row: plan.config(config) for plan in self.chosen if plan.why_not is None}
        self.stores = Stores(config, configs, workdir)

    def run(self) -> list[str]:
        """Run every chosen row; the names of those that failed."""
        self._write_suite()
        surroundings.write_json(self.workdir / "environment.json", surroundings.environment())
        failed, began, trained = [], time.perf_counter(), 0
        for i, plan in enumerate(self.chosen):
            _say(f"row {i + 1}/{len(self.chosen)} {plan.row} ({plan.title})")
            before = time.perf_counter()
            try:
                said = self._row(plan)
            except (KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:
                failed.append(plan.row)
                self._fail(plan.row, error)
                said = f"FAILED: {_line(error)}"
            self._write_suite()
            now = time.perf_counter()
            trained += said.startswith("trained")
            rest = len(self.chosen) - i - 1
            minutes = (now - began) / max(trained, 1) * rest / 60
            left = f"; about {minutes:.1f} min left" if trained and rest else ""
            _say(f"{plan.row}: {said} ({now - before:.1f} s{left})")
        return failed

    def _row(self, plan: RowPlan) -> str:
        """Bring a row to its end; what was done, in words."""
        folder = self.workdir / "runs" / plan.row
        (folder / FAILURE).unlink(missing_ok=True)  # of an earlier start: the row is tried again
        finished = run_folders(self.workdir, plan.row)
        missing = [seed for seed in self.wanted.seeds if seed not in finished]
        if not missing:
            _forget_trainings(folder)
            return f"all {len(self.wanted.seeds)} seeds were finished before; nothing trained"
        if plan.why_not:
            return f"not run: {plan.why_not}"
        try:
            config = plan.config(self.config)
            store = self.stores.of(config)
            config = _with_share(config, plan, store)
            setup = set_up(config, store)
        except UserError as error:
            self.why_not[plan.row] = _line(error)
            return f"not run: {_line(error)}"
        self.why_not[plan.row] = None
        if setup.spec.gold_slot:
            _say(LEAK_WARNING)
        # Where stores differ, baselines are those of the row that the others are held against.
        anew = plan.row == self.against
        surroundings.write(config, store, self.workdir, self.splits, anew)
        folder.mkdir(parents=True, exist_ok=True)
        self._train(plan, config, store, missing)
        return f"trained {len(missing)} seeds"

    def _train(
        self, plan: RowPlan, config: ConfigDict, store: Store, missing: Sequence[int]
    ) -> None:
        """Train and record one seed after another; what was recorded needs no checkpoint."""
        row = self.workdir / "runs" / plan.row
        session = Session(config, store)
        recorder = Recorder(session, self.splits, self.suite.split)
        failures = []
        for seed in missing:
            began, folder = time.perf_counter(), row / f"training-{seed}"
            try:
                one = seed_runs.train_seed(session, seed, folder, f"{plan.row}, seed {seed}")
            except NotFinite as error:
                failures.append(f"seed {seed}: {error}")
            else:
                about = {"suite": self.suite.name, "row": plan.row, "title": plan.title}
                recorder.write(row, one, about | {"seconds": time.perf_counter() - began})
            shutil.rmtree(folder, ignore_errors=True)
        _forget_trainings(row)
        if failures:
            raise UserError("; ".join(failures))

    def _fail(self, row: str, error: Exception) -> None:
        folder = self.workdir / "runs" / row
        folder.mkdir(parents=True, exist_ok=True)
        told = "" if isinstance(error, UserError) else traceback.format_exc()
        (folder / FAILURE).write_text(f"{_line(error)}\n{told}")

    def _write_suite(self) -> None:
        """What is known of the suite so far; of rows not asked for now, what was known before."""
        path = self.workdir / SUITE_JSON
        old = read_json(path) if path.is_file() else {}
        known = {fields["row"]: fields.get("why_not") for fields in old.get("rows", [])}
        chosen = {plan.row for plan in self.chosen}
        published = self.wanted.published
        content = {
            "suite": self.suite.name,
            "title": self.suite.title,
            "split": self.suite.split,
            "against": self.against,
            "seeds": sorted({*old.get("seeds", []), *self.wanted.seeds}),
            "config": flat(self.config),
            "command": self.wanted.command,
            "published": old.get("published", []) if published is None else published,
            "rows": [
                {
                    "row": name,
                    "title": plan.title,
                    "overrides": plan.overrides,
                    "why_not": self.why_not[name]
                    if name in chosen
                    else known.get(name, plan.why_not),
                }
                for name, plan in self.plans.items()
            ],
        }
        surroundings.write_json(path, content)


def _with_share(config: ConfigDict, plan: RowPlan, store: Store) -> ConfigDict:
    if plan.share == 1:
        return config
    whole = min(config.train.max_mentions or store.splits["train"], store.splits["train"])
    changed = config.copy_and_resolve_references()
    changed.train.max_mentions = math.ceil(plan.share * whole)
    return changed.lock()


def _forget_trainings(folder: Path) -> None:
    for path in folder.glob("training-*"):
        shutil.rmtree(path, ignore_errors=True)


def _line(error: Exception) -> str:
    told = isinstance(error, UserError)
    return " ".join((str(error) if told else f"{type(error).__name__}: {error}").split())


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
