"""A training run of one seed of a suite's row: what `drin_jax.main` does, kept as a few files.

Run k starts from the parameters, visits the mentions in the order and picks the epoch that
`drin_jax.main` has with `seed = k`, bit for bit. The runs of a row share a `Session`: one copy of
the features on the devices, and programs that are compiled once.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from data_pipeline.files import write_json
from data_pipeline.loader import EvalLoader
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from drin_jax.config import flat
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.evaluation.ranks import slot_counts
from drin_jax.experiments.results import RUN_JSON
from drin_jax.models.graph import edge_mask
from drin_jax.training.metric_log import curves
from drin_jax.training.session import Session
from drin_jax.types import GraphBatch

# Most runs of a suite take seconds, and saving a state takes as long as an epoch of theirs.
SAVE_SECONDS = 20.0
BATCH = 256  # mentions whose edges are looked at once

Sums = Callable[..., tuple[Float[Array, "2 g l 4"], Float[Array, "2 g 4"]]]


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """A finished run. `params` are those after `best_step` steps, when the best epoch ended.

    Scores are of the valid split by `eval.select_by`, losses means over an epoch.
    """

    seed: int
    params: Any
    best_step: int
    best_score: float
    loss_curve: list[float]
    valid_curve: list[float]


def train_seed(session: Session, seed: int, folder: Path, title: str) -> SeedRun:
    """Train a run, or go on with the one that a kill left in `folder`.

    Args:
        folder: for this run's checkpoints and metrics.
        title: of the progress bar.

    Raises:
        NotFinite: a loss that is not finite.
        UserError: a checkpoint that cannot be read, or is of another order.
    """
    options = {"save_seconds": SAVE_SECONDS, "title": title, "tensorboard": False}
    with contextlib.closing(session.trainer(seed, folder, **options)) as trainer:
        trainer.fit()
        params, position = trainer.best_params(), trainer.position
    return SeedRun(seed, params, position.best_step, position.best_score, *curves(folder))


class Recorder:
    """Scores the trained runs of one row, and writes a folder each: scores, ranks, metrics on every
    subset, what the layers did, and, `together`, the mean of its scores and those of lower seeds.

    Args:
        session: of the row's runs.
        splits: those to score.
        judged: the one whose mentions the edges are averaged over.
    """

    def __init__(self, session: Session, splits: Sequence[str], judged: str):
        self._session, self._judged, spec = session, judged, session.setup.spec
        self._views = {split: SplitView.of(session.store, split, spec.r) for split in splits}
        self._edge_sums = None
        if session.config.model.name == "drin":
            relations = tuple(session.config.graph.relations)
            self._edge_sums = edge_sums(session.setup.graphdef, relations, spec)

    def write(self, folder: Path, one: SeedRun, title: str, about: Mapping[str, Any]) -> None:
        """The run's folder, whole or not at all; `about` goes into its run.json as it is.

        Raises:
            NotFinite: the run has scores that are not finite.
        """
        session, config, setup = self._session, self._session.config, self._session.setup
        ks = [k for k in config.eval.ks if k <= setup.spec.r]
        data = {
            **about,
            "title": title,
            "system": title,
            "config": flat(config) | {"seed": one.seed},
            "store": session.store.fingerprint(),
            "protocol": setup.protocol,
            "gold_in_graph": setup.spec.gold_slot,
            "ks": ks,
            "train_mentions": min(
                config.train.max_mentions or session.store.splits["train"],
                session.store.splits["train"],
            ),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(one.params)),
            **{k: v for k, v in vars(one).items() if k != "params"},
            "splits": {},
        }
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for split, view in self._views.items():
            scores = session.scores(one.params, split)
            ranks = slot_counts(scores, view.gold, view.candidates).ranks("mean")
            np.save(partial / f"scores_{split}.npy", scores.astype(np.float32))
            np.save(partial / f"ranks_{split}.npy", ranks.astype(np.float32))
            data["splits"][split] = evaluate_split(view, {title: scores}, ks)
            if together := _together(folder, split, scores):
                mean = {title: np.mean(together, axis=0)}
                found = evaluate_split(view, mean, ks) | {"seeds": len(together)}
                data["together"] = data.get("together", {}) | {split: found}
        if self._edge_sums:
            view = self._views[self._judged]
            data["edges"] = mean_edges(self._edge_sums, one.params, session.store, view, setup.spec)
        write_json(partial / RUN_JSON, data)
        shutil.rmtree(folder, ignore_errors=True)  # what is there without a run.json is no run
        partial.replace(folder)


def _together(folder: Path, split: str, scores: np.ndarray) -> list[np.ndarray]:
    """A run's scores and those of the row's runs of lower seeds; empty where it is the first."""
    number = int(folder.name.removeprefix("seed"))
    others = [
        np.load(other / f"scores_{split}.npy")
        for other in sorted(folder.parent.glob("seed*"))
        if other.name.removeprefix("seed").isdigit()
        and int(other.name.removeprefix("seed")) < number
        and (other / RUN_JSON).exists()
    ]
    return [*others, scores] if others else []


def edge_sums(graphdef: nnx.GraphDef, relations: tuple[str, ...], spec: GraphSpec) -> Sums:
    """A compiled function of (params, arrays, groups [g, b]): sums of the weights of existing edges
    before and after every layer, and how many there are; first to the gold slot, then to others."""

    def step(
        params: Any, arrays: Any, groups: Bool[Array, "g b"]
    ) -> tuple[Float[Array, "2 g l 4"], Float[Array, "2 g 4"]]:
        batch = GraphBatch.from_host(arrays, spec.gold_slot)
        edges = nnx.merge(graphdef, params)(batch)[1]["edges"][..., : batch.scored]
        there = edge_mask(batch, relations)[..., : batch.scored] & batch.mask[:, None, None]
        gold = jnp.arange(batch.scored) == batch.gold[:, None]
        to = jnp.stack([gold, ~gold])[:, :, None] & there  # [2, b, 4, r]
        sums = jnp.einsum("kbur,lbur->kblu", to.astype(edges.dtype), edges)
        counts = jnp.sum(to, -1, dtype=edges.dtype)
        chosen = groups.astype(edges.dtype)
        return jnp.einsum("gb,kblu->kglu", chosen, sums), jnp.einsum("gb,kbu->kgu", chosen, counts)

    return jax.jit(step)


def mean_edges(
    step: Sums, params: Any, store: Store, view: SplitView, spec: GraphSpec
) -> dict[str, dict[str, list[list[float | None]]]]:
    """Mean weight of the edges that exist, by layer and relation, for all mentions and each kind:
    the numbers behind the paper's Figure 5.

    Args:
        step: of `edge_sums` for this model.
        params: its parameters.
        spec: of the graphs.
    Returns:
        group ("all", "kind:LABEL") -> "gold" (the edges of the gold's slot) and "other" ->
        [layers + 1][4], in the order of `schema.RELATIONS`; None where there is no such edge.
    """
    groups = {"all": np.ones(len(view.gold), bool)} | {
        name: chosen
        for name, chosen in view.groups.items()
        if name.startswith("kind:") and chosen.any()
    }
    table = np.stack(list(groups.values()))
    sums: Any = 0.0
    counts: Any = 0.0
    for rows, arrays in EvalLoader(store, view.split, BATCH, spec=spec):
        added = step(params, arrays, table[:, np.maximum(rows, 0)])
        sums, counts = sums + np.asarray(added[0], float), counts + np.asarray(added[1], float)
    there = np.broadcast_to(counts[:, :, None] > 0, sums.shape)
    means = np.divide(sums, counts[:, :, None], where=there, out=np.full(sums.shape, np.nan))
    return {
        name: {
            side: [[None if np.isnan(x) else round(x, 6) for x in layer] for layer in layers]
            for side, layers in zip(("gold", "other"), means[:, g].tolist(), strict=True)
        }
        for g, name in enumerate(groups)
    }
