"""A mention as a system sees it: candidates best first, edges after every layer; split ranks."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline import schema
from data_pipeline.graphs import GraphTables
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import slot_counts
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


@dataclasses.dataclass(frozen=True)
class Case:
    """A mention and its ranking by one system.

    `gold_id` is None for NIL and for a gold outside the knowledge base; `gold` says in words what
    the gold is and where it came.
    """

    id: str
    surface: str
    split: str
    system: str
    protocol: str
    has_image: bool
    gold_id: str | None
    gold: str
    candidates: tuple[Candidate, ...]

    def shown(self, n: int) -> tuple[Candidate, ...]:
        """The best n, and the gold wherever it is ranked."""
        return tuple(c for c in self.candidates if c.rank <= n or c.gold)

    def find(self, entity_id: str) -> Candidate | None:
        """The candidate of this id, if it was ranked."""
        return next((c for c in self.candidates if c.id == entity_id), None)

    @property
    def layers(self) -> int:
        """Layers that the edges went through; 0 for a system without edges."""
        edges = [c.edges for c in self.candidates if c.edges is not None]
        return len(edges[0]) - 1 if edges else 0

    @property
    def has_edges(self) -> bool:
        return any(c.edges is not None for c in self.candidates)


@dataclasses.dataclass(frozen=True)
class Ranker:
    """A trained system over a store. `system` and `protocol` are its names in reports."""

    store: Store
    graphdef: nnx.GraphDef
    params: Any
    spec: GraphSpec
    system: str
    protocol: str

    def graphs(self, split: str, rows: Sequence[int]) -> GraphBatch:
        """The graphs of these rows of a split, as the model takes them."""
        batch = GraphTables(self.store, split, self.spec).batch(np.asarray(rows))
        arrays = {name: jnp.asarray(array) for name, array in batch.items()}
        return GraphBatch.from_host(arrays, self.spec.gold_slot)

    def case(self, split: str, row: int) -> Case:
        """What the system makes of one mention, by row of its split."""
        return self.cases(split, [row], self.graphs(split, [row]))[0]

    def cases(self, split: str, rows: Sequence[int], graphs: GraphBatch) -> list[Case]:
        """The same of several mentions at once, from the graphs of these rows."""
        scores, aux = _forward(self.graphdef, self.params, graphs)
        edges = [None] * len(rows)
        if "edges" in aux:
            there = np.asarray(edge_mask(graphs, nnx.merge(self.graphdef, self.params).relations))
            weights = np.where(there, np.asarray(aux["edges"], np.float32), np.nan)
            edges = list(np.moveaxis(weights, 1, 0))  # [b, l+1, 4, r]
        scores = np.where(graphs.candidate_mask[:, : graphs.scored], scores, -np.inf)
        pictures = np.asarray(graphs.entity_has_image)
        store = self.store
        cases = []
        for i, row in enumerate(rows):
            candidates = self._candidates(split, row, scores[i], pictures[i], edges[i])
            mention = int(store.array(f"{split}_mention")[row])
            gold = int(store.array(f"{split}_gold_entity")[row])
            cases.append(
                Case(
                    id=store.strings("mention_id")[mention],
                    surface=store.strings("mention_surface")[mention],
                    split=split,
                    system=self.system,
                    protocol=self.protocol,
                    has_image=bool(graphs.mention_has_image[i]),
                    gold_id=store.strings("entity_id")[gold] if gold >= 0 else None,
                    gold=_gold(store, gold, candidates),
                    candidates=candidates,
                )
            )
        return cases

    def _candidates(
        self,
        split: str,
        row: int,
        scores: np.ndarray,
        pictures: np.ndarray,
        edges: np.ndarray | None,
    ) -> tuple[Candidate, ...]:
        """A mention's candidates best first; its `scores` [r] are -inf where there is none."""
        slots = self.store.array(f"{split}_candidates")[row]
        gold = self.store.array(f"{split}_gold_entity")[row]
        ids, names = self.store.strings("entity_id"), self.store.strings("entity_name")
        order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > -np.inf]
        return tuple(
            Candidate(
                id=ids[int(slots[slot])],
                name=names[int(slots[slot])],
                rank=rank,
                score=float(scores[slot]),
                gold=bool(slots[slot] == gold),
                has_image=bool(pictures[slot]),
                edges=None if edges is None else edges[:, :, slot],
            )
            for rank, slot in enumerate(order, 1)
        )


@functools.partial(jax.jit, static_argnums=0)
def _forward(graphdef: nnx.GraphDef, params: Any, graphs: GraphBatch) -> Any:
    return nnx.merge(graphdef, params)(graphs)


def two_decimals(weight: float) -> str:
    """A weight as it is shown, without a sign on what rounds to zero."""
    return f"{weight:.2f}".replace("-0.00", "0.00")


def _gold(store: Store, row: int, candidates: Sequence[Candidate]) -> str:
    if row == schema.NIL:
        return "NIL: the mention has no entity"
    if row == schema.OUTSIDE_KB:
        return "outside the knowledge base"
    named = f"{store.strings('entity_name')[row]} ({store.strings('entity_id')[row]})"
    ranks = [c.rank for c in candidates if c.gold]
    if not ranks:
        return f"{named}, not among the {len(candidates)} candidates"
    return f"{named}, rank {ranks[0]} of {len(candidates)}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ranks a whole split; ties in the order of retrieval.

    `ranks` [n] float are the gold's, infinite where it is not among the candidates; `predicted` [n]
    the slot that is ranked first, -1 without candidates; `wrong` [n] bool.
    """

    view: SplitView
    scores: np.ndarray  # [n, r]
    ranks: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, view: SplitView, scores: np.ndarray) -> "Outcome":
        """The ranking that these scores [n, r] make of the view's mentions."""
        best = np.where(view.candidates, scores, -np.inf).argmax(1)
        return cls(
            view=view,
            scores=scores,
            ranks=slot_counts(scores, view.gold, view.candidates).ranks("key"),
            predicted=np.where(view.candidates.any(1), best, -1),
        )

    @property
    def wrong(self) -> np.ndarray:
        return self.ranks > 1
