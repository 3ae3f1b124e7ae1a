"""A mention as a system sees it: candidates best first, edges after every layer; split ranks."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.graphs import GraphTables
from data_pipeline.schema import NIL, OUTSIDE_KB
from drin_jax.evaluation.evaluate import SplitView, Trained
from drin_jax.evaluation.ranks import check_finite, slot_counts
from drin_jax.models.graph import edge_mask
from drin_jax.types import GraphBatch

MOVED = 0.005  # a smaller change of a weight looks like none at two decimals


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A ranked candidate. `edges` [l+1, 4] holds the weights before and after every layer in the
    order of RELATIONS, NaN where there is no edge; None for a system without edges."""

    id: str
    name: str
    rank: int  # from 1; ties in the order of retrieval
    score: float
    gold: bool
    has_image: bool
    edges: np.ndarray | None

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


@dataclasses.dataclass(frozen=True)
class Case:
    """A mention and its ranking by one system; `gold` says in words what the gold is and where it
    came, `layers` how many the edges went through, 0 for a system without edges."""

    id: str
    surface: str
    split: str
    system: str
    protocol: str
    gold: str
    layers: int
    candidates: tuple[Candidate, ...]

    def shown(self, n: int) -> tuple[Candidate, ...]:
        """The best n, and the gold wherever it is ranked."""
        return tuple(c for c in self.candidates if c.rank <= n or c.gold)

    def find(self, entity_id: str) -> Candidate | None:
        """The candidate of this id, if it was ranked."""
        return next((c for c in self.candidates if c.id == entity_id), None)


def ranked(
    run: Trained, split: str, rows: Sequence[int], pictures: bool | Sequence[bool] = True
) -> list[Case]:
    """What the run makes of the mentions in these rows of a split.

    Args:
        pictures: whether a mention's graph shows its pictures; one for all, or one a row.
    """
    store, setup = run.store, run.setup
    batch = GraphTables(store, split, setup.spec).batch(np.asarray(rows))
    for side in ("mention", "entity"):
        batch[f"{side}_has_image"] = (batch[f"{side}_has_image"].T & np.asarray(pictures)).T
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    graphs = GraphBatch.from_host(arrays, setup.spec.gold_slot)
    scores, aux = _forward(setup.graphdef, run.params, graphs)
    there = np.asarray(graphs.candidate_mask[:, : graphs.scored])
    check_finite(np.asarray(scores), there)
    scores = np.where(there, scores, -np.inf)
    edges: Any = [None] * len(rows)
    if "edges" in aux:
        there = np.asarray(edge_mask(graphs, nnx.merge(setup.graphdef, run.params).relations))
        weights = np.where(there, np.asarray(aux["edges"], np.float32), np.nan)
        edges = np.moveaxis(weights, 1, 0)  # [b, l+1, 4, r]
    ids, names = store.strings("entity_id"), store.strings("entity_name")
    cases = []
    for i, row in enumerate(rows):
        slots = store.array(f"{split}_candidates")[row]
        mention = int(store.array(f"{split}_mention")[row])
        gold = int(store.array(f"{split}_gold_entity")[row])
        order = [int(j) for j in np.argsort(-scores[i], kind="stable") if scores[i, j] > -np.inf]
        candidates = tuple(
            Candidate(
                id=ids[int(slots[slot])],
                name=names[int(slots[slot])],
                rank=rank,
                score=float(scores[i, slot]),
                gold=bool(slots[slot] == gold),
                has_image=bool(batch["entity_has_image"][i, slot]),
                edges=None if edges[i] is None else edges[i][:, :, slot],
            )
            for rank, slot in enumerate(order, 1)
        )
        told = {NIL: "NIL: the mention has no entity", OUTSIDE_KB: "outside the knowledge base"}
        if gold not in told:
            places = [f"rank {c.rank} of {len(order)}" for c in candidates if c.gold]
            places += [f"not among the {len(order)} candidates"]
            told[gold] = f"{names[gold]} ({ids[gold]}), {places[0]}"
        cases.append(
            Case(
                id=store.strings("mention_id")[mention],
                surface=store.strings("mention_surface")[mention],
                split=split,
                system=run.system,
                protocol=run.protocol,
                gold=told[gold],
                layers=len(edges[i]) - 1 if order and edges[i] is not None else 0,
                candidates=candidates,
            )
        )
    return cases


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef: nnx.GraphDef, params: Any, graphs: GraphBatch) -> Any:
    return nnx.merge(graphdef, params)(graphs)


def two_decimals(weight: float) -> str:
    """A weight as it is shown, without a sign on what rounds to zero."""
    return f"{weight:.2f}".replace("-0.00", "0.00")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ranks a whole split, by its scores [n, r]; ties in the order of retrieval."""

    view: SplitView
    scores: np.ndarray

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """The gold's [n] float, infinite where it is not among the candidates."""
        return slot_counts(self.scores, self.view.gold, self.view.candidates).ranks("key")

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """The slot [n] that is ranked first, -1 without candidates."""
        best = np.where(self.view.candidates, self.scores, -np.inf).argmax(1)
        return np.where(self.view.candidates.any(1), best, -1)

    @property
    def wrong(self) -> np.ndarray:
        """Whether [n] something else than the gold is first."""
        return self.ranks > 1
