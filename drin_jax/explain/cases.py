"""One mention as a system sees it: its candidates best first, and every edge after every layer."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.models.graph import edge_mask
from drin_jax.types import GraphBatch
from drin_jax.workdir import FinishedRun

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


def explain(run: FinishedRun, split: str, row: int) -> Case:
    """What the run's best parameters make of one mention, by row of its split."""
    return explain_rows(run, split, [row], run.graphs(split, np.array([row])))[0]


def explain_rows(
    run: FinishedRun, split: str, rows: Sequence[int], graphs: GraphBatch
) -> list[Case]:
    """The same of several mentions at once, from the graphs of these rows."""
    scores, aux = run.forward(graphs)
    edges = None
    if "edges" in aux:
        there = np.asarray(edge_mask(graphs, run.model().relations))
        edges = np.where(there, np.asarray(aux["edges"], np.float32), np.nan)  # [l+1, b, 4, r]
    return [
        _case(
            run,
            split,
            row,
            scores=np.asarray(scores, np.float32)[i],
            present=np.asarray(graphs.candidate_mask)[i, : graphs.scored],
            pictures=np.asarray(graphs.entity_has_image)[i],
            own_picture=bool(graphs.mention_has_image[i]),
            edges=None if edges is None else edges[:, i],
        )
        for i, row in enumerate(rows)
    ]


def _case(
    run: FinishedRun,
    split: str,
    row: int,
    *,
    scores: np.ndarray,
    present: np.ndarray,
    pictures: np.ndarray,
    own_picture: bool,
    edges: np.ndarray | None,
) -> Case:
    store = run.store
    slots = np.asarray(store.array(f"{split}_candidates")[row])
    gold_row = int(store.array(f"{split}_gold_entity")[row])
    ids, names = store.strings("entity_id"), store.strings("entity_name")
    order = [int(slot) for slot in np.argsort(-scores, kind="stable") if present[slot]]
    candidates = tuple(
        Candidate(
            id=ids[int(slots[slot])],
            name=names[int(slots[slot])],
            rank=rank,
            score=float(scores[slot]),
            gold=int(slots[slot]) == gold_row,
            has_image=bool(pictures[slot]),
            edges=None if edges is None else edges[:, :, slot],
        )
        for rank, slot in enumerate(order, 1)
    )
    mention = int(store.array(f"{split}_mention")[row])
    return Case(
        id=store.strings("mention_id")[mention],
        surface=store.strings("mention_surface")[mention],
        split=split,
        system=run.system,
        protocol=run.protocol,
        has_image=own_picture,
        gold_id=ids[gold_row] if gold_row >= 0 else None,
        gold=_gold(store, gold_row, candidates),
        candidates=candidates,
    )


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


def same_mention(other: FinishedRun, run: FinishedRun, case: Case) -> Case:
    """What another run over the same data makes of the case's mention.

    Raises:
        UserError: the other run knows no such mention, or it is not the same one.
    """
    store, name = other.store, f"{case.split}_mention"
    ids, surfaces = store.strings("mention_id"), store.strings("mention_surface")
    rows = [int(row) for row in store.array(name)]
    row = next((i for i, mention in enumerate(rows) if ids[mention] == case.id), None)
    if store.name != run.store.name or row is None or surfaces[rows[row]] != case.surface:
        raise UserError(
            f"--against {other.workdir}: made from other data ({store.name}), whose {case.split} "
            f"split has no mention {case.id!r} of {case.surface!r}; give a run over the same data"
        )
    return explain(other, case.split, row)
