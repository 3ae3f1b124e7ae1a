"""A finished run as files: its scores, its metrics on every subset, and what its layers did."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.config import flat
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.evaluation.ranks import slot_counts
from drin_jax.experiments import edge_weights, seeds
from drin_jax.experiments.results import RUN_JSON
from drin_jax.experiments.seeds import SeedRun
from drin_jax.training.setup import set_up


class Recorder:
    """Scores and writes the trained runs of one row.

    Args:
        config: of the row; its seed plays no part.
        splits: those to score.
        judged: the one whose mentions the edges are averaged over.
    """

    def __init__(self, config: ConfigDict, store: Store, splits: Sequence[str], judged: str):
        self._config, self._store, self._judged = config, store, judged
        self._setup = set_up(config, store)
        self._views = {split: SplitView.of(store, split, self._setup.spec.r) for split in splits}
        self._ks = [k for k in config.eval.ks if k <= self._setup.spec.r]

    def write(self, folder: Path, trained: Sequence[SeedRun], about: Mapping[str, Any]) -> None:
        """One folder `seedK` a run under `folder`. `about` goes into each run.json as it is, and
        has at least `title`.

        Raises:
            UserError: a run has scores that are not finite.
        """
        params = [one.params for one in trained]
        scores = {
            split: seeds.score_seeds(self._config, self._store, params, split)
            for split in self._views
        }
        layers = self._mean_edges(params)
        for i, one in enumerate(trained):
            own = {split: scores[split][i] for split in self._views}
            for split, array in own.items():
                if not np.all(np.isfinite(array)):
                    raise UserError(f"seed {one.seed}: {split} has scores that are not finite")
            data = {**about, **self._facts(one, own, str(about["title"]))}
            if layers:
                data["edges"] = layers[i]
            self._write(folder / f"seed{one.seed}", data, own)

    def _facts(self, one: SeedRun, scores: Mapping[str, np.ndarray], title: str) -> dict[str, Any]:
        config = self._config
        return {
            "system": title,
            "seed": one.seed,
            "config": flat(config) | {"seed": one.seed},
            "protocol": self._setup.protocol.label(),
            "gold_in_graph": self._setup.spec.gold_slot,
            "ks": self._ks,
            "train_mentions": config.train.max_mentions or self._store.splits["train"],
            "parameters": _count(one.params),
            "best_step": one.best_step,
            "best_score": one.best_score,
            "valid_curve": one.valid_curve,
            "loss_curve": one.loss_curve,
            "splits": {
                split: evaluate_split(self._views[split], {title: own}, self._ks)
                for split, own in scores.items()
            },
        }

    def _mean_edges(self, params: Sequence[Any]) -> list[edge_weights.Means]:
        """Of each run; empty for a system without edges."""
        if self._config.model.name != "drin":
            return []
        setup = self._setup
        step = edge_weights.sums_of(setup.graphdef, tuple(self._config.graph.relations), setup.spec)
        found = []
        for pure in params:
            state = nnx.clone(setup.params)
            nnx.replace_by_pure_dict(state, pure)
            found.append(
                edge_weights.mean_edges(
                    step,
                    state,
                    self._store,
                    self._views[self._judged],
                    setup.spec,
                )
            )
        return found

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


def _count(params: Any) -> int:
    """Numbers in a pure dict of parameters."""
    if isinstance(params, dict):
        return sum(map(_count, params.values()))
    return int(np.size(params))


def _finite(tree: Any) -> Any:
    """JSON has no infinities and no NaN: None stands for them."""
    if isinstance(tree, Mapping):
        return {str(name): _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    if isinstance(tree, float | np.floating):
        return float(tree) if math.isfinite(tree) else None
    return tree
