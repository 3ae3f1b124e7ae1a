"""A finished run as files: its scores, its metrics on every subset, and what its layers did."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.schema import UserError
from drin_jax.config import flat
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.evaluation.ranks import slot_counts
from drin_jax.experiments import edge_weights
from drin_jax.experiments.results import RUN_JSON
from drin_jax.experiments.seed_runs import SeedRun
from drin_jax.training.session import Session


class Recorder:
    """Scores and writes the trained runs of one row.

    Args:
        session: of the row's runs.
        splits: those to score.
        judged: the one whose mentions the edges are averaged over.
    """

    def __init__(self, session: Session, splits: Sequence[str], judged: str):
        self._session, self._config, self._store = session, session.config, session.store
        self._judged, self._setup = judged, session.setup
        r = self._setup.spec.r
        self._views = {split: SplitView.of(self._store, split, r) for split in splits}
        self._ks = [k for k in self._config.eval.ks if k <= r]
        self._edges = None
        if self._config.model.name == "drin":
            self._edges = edge_weights.sums_of(
                self._setup.graphdef, tuple(self._config.graph.relations), self._setup.spec
            )

    def write(self, folder: Path, one: SeedRun, about: Mapping[str, Any]) -> None:
        """The folder `seedK` of a run under `folder`. `about` goes into its run.json as it is, and
        has at least `title`.

        Raises:
            UserError: the run has scores that are not finite.
        """
        scores = {split: self._session.scores(one.params, split) for split in self._views}
        for split, array in scores.items():
            if not np.all(np.isfinite(array)):
                raise UserError(f"seed {one.seed}: {split} has scores that are not finite")
        data = {**about, **self._facts(one, scores, str(about["title"]))}
        if self._edges:
            view, spec = self._views[self._judged], self._setup.spec
            data["edges"] = edge_weights.mean_edges(
                self._edges, one.params, self._store, view, spec
            )
        self._write(folder / f"seed{one.seed}", data, scores)

    def _facts(self, one: SeedRun, scores: Mapping[str, np.ndarray], title: str) -> dict[str, Any]:
        config = self._config
        return {
            "system": title,
            "seed": one.seed,
            "config": flat(config) | {"seed": one.seed},
            "protocol": self._setup.protocol,
            "gold_in_graph": self._setup.spec.gold_slot,
            "ks": self._ks,
            "train_mentions": config.train.max_mentions or self._store.splits["train"],
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(one.params)),
            "best_step": one.best_step,
            "best_score": one.best_score,
            "valid_curve": one.valid_curve,
            "loss_curve": one.loss_curve,
            "splits": {
                split: evaluate_split(self._views[split], {title: own}, self._ks)
                for split, own in scores.items()
            },
        }

    def _write(
        self, folder: Path, data: Mapping[str, Any], scores: Mapping[str, np.ndarray]
    ) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for split, own in scores.items():
            view = self._views[split]
            ranks = slot_counts(own, view.gold, view.candidates).ranks("mean")
            np.save(partial / f"scores_{split}.npy", own.astype(np.float32))
            np.save(partial / f"ranks_{split}.npy", ranks.astype(np.float32))
        (partial / RUN_JSON).write_text(json.dumps(_finite(data), indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # what is there without a run.json is no run
        partial.replace(folder)


def _finite(tree: Any) -> Any:
    """JSON has no infinities and no NaN: None stands for them."""
    if isinstance(tree, Mapping):
        return {str(name): _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float | np.floating):
        return float(tree) if math.isfinite(tree) else None
    return tree
