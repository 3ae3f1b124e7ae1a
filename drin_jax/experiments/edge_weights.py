"""What DRIN's layers do to edges, over a whole split: the numbers behind the paper's Figure 5."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from data_pipeline.loader import EvalLoader
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.models.graph import edge_mask
from drin_jax.types import GraphBatch

Means = dict[str, dict[str, list[list[float | None]]]]
BATCH = 256


def sums_of(
    graphdef: nnx.GraphDef, relations: tuple[str, ...], spec: GraphSpec
) -> Callable[..., tuple[Float[Array, "2 g l 4"], Float[Array, "2 g 4"]]]:
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
    step: Callable[..., tuple[Array, Array]],
    params: Any,
    store: Store,
    view: SplitView,
    spec: GraphSpec,
) -> Means:
    """Mean weight of the edges that exist, by layer and relation, for all mentions and each kind.

    Args:
        step: of `sums_of` for this model.
        params: its parameters.
        spec: of the graphs.
    Returns:
        group ("all", "kind:LABEL") -> "gold" (the edges of the gold's slot) and "other" ->
        [layers + 1][4], in the order of `schema.RELATIONS`; None where there is no such edge.
    """
    groups = kinds(view)
    table = np.stack(list(groups.values()))
    sums: Any = 0.0
    counts: Any = 0.0
    for rows, arrays in EvalLoader(store, view.split, BATCH, spec=spec):
        added = step(params, arrays, table[:, np.maximum(rows, 0)])
        sums, counts = sums + np.asarray(added[0], float), counts + np.asarray(added[1], float)
    counts = counts[:, :, None]
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return {
        name: {to: _lists(means[k, g]) for k, to in enumerate(("gold", "other"))}
        for g, name in enumerate(groups)
    }


def kinds(view: SplitView) -> Mapping[str, np.ndarray]:
    """All mentions [n] and those of every kind that occurs."""
    return {"all": np.ones(len(view.gold), bool)} | {
        name: chosen
        for name, chosen in view.groups.items()
        if name.startswith("kind:") and chosen.any()
    }


def _lists(means: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(x) else round(float(x), 6) for x in row] for row in means]
