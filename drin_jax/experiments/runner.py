"""Runs a suite: trains what is not finished, row by row, and leaves what `results` reads.

A run's folder is written under another name and renamed, so it is there whole or not at all; a
training that was killed goes on from its checkpoint. A row that fails does not stop the others.
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.files import write_json, write_whole
from data_pipeline.output import say
from data_pipeline.schema import UserError, check_known
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.audit.findings import data_findings
from drin_jax.config import COMPARABLE, check, deciding, flat
from drin_jax.evaluation.evaluate import SplitView, baseline_scores, evaluate_split
from drin_jax.evaluation.ranks import NotFinite
from drin_jax.experiments import seed_runs
from drin_jax.experiments.results import FAILURE, RUN_JSON, SUITE_JSON, read_json, run_folders
from drin_jax.experiments.suites import RowPlan, Suite, has_pictures
from drin_jax.extract import preparation
from drin_jax.extract.stored import settings, store_path
from drin_jax.training.session import Session
from drin_jax.training.setup import LEAK_WARNING, set_up
from drin_jax.workdir import claim

# A suite may go on with other values of these; all else decides what its rows are.
FREE_FIELDS = deciding(*COMPARABLE) | {"seed"}
PACKAGES = ("drin-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "transformers")


class Stores:
    """The feature stores of a suite's rows: one for all rows that the same store can serve, made
    when first asked for. The config's own lies where `drin_jax.main` has it."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self._workdir = workdir
        self._paths = {_key(config): store_path(config, workdir)}
        self._opened: dict[str, Store] = {}

    def path(self, row: str, config: ConfigDict) -> Path:
        """Where the row's store is, or will be."""
        return self._paths.setdefault(_key(config), self._workdir / "stores" / row)

    def of(self, row: str, config: ConfigDict) -> Store:
        """The row's store with what its system needs; UserError saying why not."""
        key, path = _key(config), self.path(row, config)
        needs = models.needs(config.model.name, int(has_pictures(config)))
        if key not in self._opened or self._opened[key].lacks(needs):
            asking = config.copy_and_resolve_references()
            asking.data.store = str(path)
            self._opened[key] = preparation.prepare(asking, self._workdir, needs=needs)
        return self._opened[key]


def _key(config: ConfigDict) -> str:
    """Equal for configs that one store serves."""
    return json.dumps(settings(config), sort_keys=True, default=str)


class Runner:
    """One suite over one config in one workdir.

    Args:
        rows: slugs of the rows to run; empty: all.
        against: the row to test the others against; empty: the suite's own.
        published: as `results.read_published` gives them; None: those given before.
        command: the command line, told in the report.
    """

    def __init__(
        self,
        suite: Suite,
        config: ConfigDict,
        workdir: Path,
        *,
        seeds: Sequence[int],
        rows: Sequence[str] = (),
        against: str = "",
        published: list[dict[str, Any]] | None = None,
        command: str = "",
    ):
        check(config)
        self.suite, self.config, self.workdir, self.seeds = suite, config, workdir, seeds
        self.plans = {plan.row: plan for plan in suite.plan(config)}
        for name in filter(None, (*rows, against)):
            check_known(f"a row of {suite.name}", name, self.plans)
        claim(workdir, config, FREE_FIELDS, suite=suite.name)
        self.stores = Stores(config, workdir)
        self.chosen = [self.plans[name] for name in rows or self.plans]
        self.against = against or suite.default_against(config)
        self.splits = ("valid",) if suite.split == "valid" else ("valid", "test")
        before = read_json(workdir / SUITE_JSON, {})
        self._told = {
            "suite": suite.name,
            "title": suite.title,
            "split": suite.split,
            "against": self.against,
            "seeds": sorted({*before.get("seeds", []), *seeds}),
            "config": flat(config),
            "command": command,
            "published": before.get("published", []) if published is None else published,
        }
        self.why_not = {name: plan.why_not for name, plan in self.plans.items()}
        # Of rows not asked for now, what was known before.
        for fields in before.get("rows", []):
            if fields["row"] not in {plan.row for plan in self.chosen}:
                self.why_not[fields["row"]] = fields.get("why_not")

    def run(self) -> list[str]:
        """Run every chosen row; the names of those that failed."""
        self._write_suite()
        write_json(self.workdir / "environment.json", environment())
        failed, began, trained = [], time.perf_counter(), 0
        for i, plan in enumerate(self.chosen):
            say(f"row {i + 1}/{len(self.chosen)} {plan.row} ({plan.title})")
            before = time.perf_counter()
            try:
                said = self._row(plan)
            except Exception as error:
                failed.append(plan.row)
                folder = self.workdir / "runs" / plan.row
                folder.mkdir(parents=True, exist_ok=True)
                told = "" if isinstance(error, UserError) else traceback.format_exc()
                (folder / FAILURE).write_text(f"{_line(error)}\n{told}")
                said = f"FAILED: {_line(error)}"
            self._write_suite()
            now = time.perf_counter()
            trained += said.startswith("trained")
            rest = len(self.chosen) - i - 1
            minutes = (now - began) / max(trained, 1) * rest / 60
            left = f"; about {minutes:.1f} min left" if trained and rest else ""
            say(f"{plan.row}: {said} ({now - before:.1f} s{left})")
        return failed

    def _row(self, plan: RowPlan) -> str:
        """Bring a row to its end; what was done, in words."""
        folder = self.workdir / "runs" / plan.row
        (folder / FAILURE).unlink(missing_ok=True)  # of an earlier start: the row is tried again
        finished = run_folders(self.workdir, plan.row)
        missing = [seed for seed in self.seeds if seed not in finished]
        config = plan.config(self.config)
        self._check_finished(self.stores.path(plan.row, config), _key(config))
        if not missing:
            _remove(folder.glob("training-*"))
            return f"all {len(self.seeds)} seeds were finished before; nothing trained"
        if plan.why_not:
            return f"not run: {plan.why_not}"
        try:
            store = self.stores.of(plan.row, config)
            if plan.share < 1:
                whole = min(config.train.max_mentions or math.inf, store.splits["train"])
                with config.unlocked():
                    config.train.max_mentions = math.ceil(plan.share * whole)
            setup = set_up(config, store)
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # the machine's doing, not the row's
                raise
            self.why_not[plan.row] = _line(error)
            return f"not run: {_line(error)}"
        self._check_finished(store.path, _key(config))
        self.why_not[plan.row] = None
        if setup.spec.gold_slot:
            say(LEAK_WARNING)
        # Where stores differ, baselines are those of the row that the others are held against.
        if plan.row == self.against or not (self.workdir / "baselines.json").is_file():
            self._write_untrained(config, store)
        self._train(plan, config, store, missing)
        return f"trained {len(missing)} seeds"

    def _check_finished(self, path: Path, key: str) -> None:
        """UserError where a finished run of any row that this store serves is over another one."""
        if not path.is_dir():
            return
        here = Store.open(path).fingerprint()
        for plan in self.plans.values():
            for folder in run_folders(self.workdir, plan.row).values():
                told = read_json(folder / RUN_JSON).get("store", here)  # older runs have none
                if told != here and _key(plan.config(self.config)) == key:
                    raise UserError(
                        f"{folder} holds a run over another feature store than {path}; delete "
                        f"{self.workdir / 'runs'} and {self.workdir / 'baselines.json'} to run "
                        "all anew, or use another --workdir"
                    )

    def _train(
        self, plan: RowPlan, config: ConfigDict, store: Store, missing: Sequence[int]
    ) -> None:
        """Train and record one seed after another; what was recorded needs no checkpoint."""
        row = self.workdir / "runs" / plan.row
        session = Session(config, store)
        recorder = seed_runs.Recorder(session, self.splits, self.suite.split)
        failures = []
        for seed in missing:
            began, folder = time.perf_counter(), row / f"training-{seed}"
            try:
                one = seed_runs.train_seed(session, seed, folder, f"{plan.row}, seed {seed}")
                seconds = time.perf_counter() - began
                about = {"suite": self.suite.name, "row": plan.row, "seconds": seconds}
                recorder.write(row / f"seed{seed}", one, plan.title, about)
            except NotFinite as error:
                failures.append(f"seed {seed}: {error}")
            _remove([folder])
        _remove(row.glob("training-*"))
        if failures:
            raise UserError("; ".join(failures))

    def _write_untrained(self, config: ConfigDict, store: Store) -> None:
        """Write audit.json, groups_SPLIT.npz and baselines.json: what needs no training."""
        write_json(self.workdir / "audit.json", data_findings(config, store))
        r = config.graph.r or store.sizes["r"]
        results = {}
        for split in self.splits:
            view = SplitView.of(store, split, r)
            write_whole(
                self.workdir / f"groups_{split}.npz",
                lambda file, groups=view.groups: np.savez(file, **groups),  # type: ignore[misc]
            )
            ks = [k for k in config.eval.ks if k <= r]
            results[split] = evaluate_split(view, baseline_scores(store, view), ks)
        write_json(self.workdir / "baselines.json", results)

    def _write_suite(self) -> None:
        """What is known of the suite so far."""
        rows = [
            {
                "row": name,
                "title": plan.title,
                "overrides": plan.overrides,
                "why_not": self.why_not[name],
            }
            for name, plan in self.plans.items()
        ]
        write_json(self.workdir / SUITE_JSON, self._told | {"rows": rows})


def environment() -> dict[str, Any]:
    """Versions, device and machine that the runs of this call have, and the commit of the
    repository that this program lies in, with "+" where files differ from it."""
    device = jax.local_devices()[0]
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*"]
    try:
        found = subprocess.run([*git, "--dirty=+"], capture_output=True, text=True, timeout=10)
        commit = found.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "python": platform.python_version(),
        **{name: installed[name] for name in PACKAGES if name in installed},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "processor": platform.machine(),
        "cores": len(affinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit,
    }


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _line(error: Exception) -> str:
    told = isinstance(error, UserError)
    return " ".join((str(error) if told else f"{type(error).__name__}: {error}").split())
