"""A mention as a system sees it: candidates best first, edges after every layer; split ranks."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipeline.graphs import HostArrays
from data_pipeline.loader import GraphTables
from data_pipeline.schema import CUT, EVIDENCE, EVIDENCE_COLUMNS, NIL, OUTSIDE_KB
from data_pipeline.store.reader import Store
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import check_finite, slot_counts
from drin_jax.evaluation.scoring import Trained
from drin_jax.explain import words
from drin_jax.models.graph import blind, edge_mask
from drin_jax.types import Aux, GraphBatch

_OF_PICTURES = np.array([name == "pictures" for name in EVIDENCE_COLUMNS])
MOVED = 0.005  # a smaller change of a weight looks like none at two decimals


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A ranked candidate. `edges` [l+1, 4] holds the weights before and after every layer in the
    order of RELATIONS, NaN where there is no edge; None for a system without edges. `reasons` tells
    in words what each relation beyond those knows of it, `contributions` how much of its score goes
    without that; both empty for a system without them."""

    id: str
    name: str
    rank: int  # from 1; ties in the order of retrieval
    score: float
    gold: bool
    has_image: bool
    edges: np.ndarray | None
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    contributions: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


@dataclasses.dataclass(frozen=True)
class Case:
    """A mention and its ranking by one system; `gold` says in words what the gold is and where it
    came, `layers` how many the edges went through, 0 for a system without edges; `gains` what each
    relation beyond the paper's adds to the lead of the first over the second."""

    id: str
    surface: str
    split: str
    system: str
    protocol: str
    gold: str
    layers: int
    candidates: tuple[Candidate, ...]
    gains: Mapping[str, float] = dataclasses.field(default_factory=dict)

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
    if "evidence" in batch:
        shown = np.broadcast_to(pictures, len(rows))[:, None, None]
        batch["evidence"] = np.where(shown | ~_OF_PICTURES, batch["evidence"], 0)
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    graphs = GraphBatch.from_host(arrays, setup.spec.gold_slot)
    if not setup.pictures:
        graphs = blind(graphs, jnp.zeros(len(rows), bool))
    scores, aux = _forward(setup.graphdef, run.params, graphs)
    there = np.asarray(graphs.candidate_mask[:, : graphs.scored])
    check_finite(np.asarray(scores), there)
    before, again = np.asarray(scores), run.reordering
    if again:
        scores = again.scores(split, before, np.asarray(rows))
    scores = np.where(there, scores, -np.inf)
    edges: Any = [None] * len(rows)
    if "edges" in aux:
        there = np.asarray(edge_mask(graphs, nnx.merge(setup.graphdef, run.params).relations))
        weights = np.where(there, np.asarray(aux["edges"], np.float32), np.nan)
        edges = np.moveaxis(weights, 1, 0)  # [b, l+1, 4, r]
    values, cut, without = _evidence(run, graphs, aux)
    said = np.full(before.shape, np.nan)
    if again and again.weight:
        said = again.said[split][np.asarray(rows)]
        without = {k: again.scores(split, less, np.asarray(rows)) for k, less in without.items()}
        without[words.RERANKER] = before
    ids, names = _named(store, split, rows)
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
                reasons=(_reasons(values[i, slot], cut[i, slot]) if len(values) else {})
                | words.read_again(float(said[i, slot])),
                contributions={
                    name: float(scores[i, slot] - less[i, slot]) for name, less in without.items()
                },
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
                gains={
                    name: float(scores[i, order[0]] - scores[i, order[1]])
                    - float(less[i, order[0]] - less[i, order[1]])
                    for name, less in without.items()
                    if len(order) > 1
                },
            )
        )
    return cases


def _named(store: Store, split: str, rows: Sequence[int]) -> tuple[dict[int, str], dict[int, str]]:
    """Ids and names by row of the knowledge base, of the candidates and golds of these mentions."""
    there = [store.array(f"{split}_{name}")[rows] for name in ("candidates", "gold_entity")]
    wanted = np.unique(np.concatenate([np.ravel(some) for some in there]))
    wanted = wanted[wanted >= 0].astype(np.int64)
    columns = [store.kb.taken(name, wanted) for name in ("id", "name")]
    ids, names = (dict(zip(wanted.tolist(), column, strict=True)) for column in columns)
    return ids, names


def _evidence(
    run: Trained, graphs: GraphBatch, aux: Aux
) -> tuple[np.ndarray, np.ndarray, HostArrays]:
    """The values [b,r,k] as they were before they were standardised, NaN where they are not known,
    whether they were cut then, 1 where they are more and -1 where they are less, and the scores
    [b,r] without each relation; empty for a system that reads none."""
    if "evidence" not in aux:
        return np.zeros(0), np.zeros(0), {}
    mean, spread = np.asarray(run.store.array("evidence_scale"))
    read = np.asarray(aux["evidence"])
    flags = np.array([name in words.FLAGS for own in EVIDENCE.values() for name in own])
    values = np.where(flags, read > 0, read * spread + mean)  # whatever their mean, one is above it
    values = np.where(read == 0, np.nan, values)
    without = {}
    for name in EVIDENCE:
        own = np.array([column == name for column in EVIDENCE_COLUMNS])
        if read[..., own].any():
            kept = jnp.where(own, 0, graphs.needed("evidence"))
            less = graphs.replace(evidence=kept)  # type: ignore[attr-defined]
            without[name] = np.asarray(_forward(run.setup.graphdef, run.params, less)[0])
    return values, np.sign(read) * (np.abs(read) >= CUT), without


def _reasons(values: np.ndarray, cut: np.ndarray) -> dict[str, str]:
    """What each relation tells of one candidate, of its values [k] and how they were cut."""
    out, begin = {}, 0
    for name, own in EVIDENCE.items():
        some = slice(begin, begin + len(own))
        known = dict(zip(own, values[some].tolist(), strict=True))
        beyond = {value: int(side) for value, side in zip(own, cut[some], strict=True) if side}
        begin += len(own)
        if told := words.told(name, known, beyond):
            out[name] = told
    return out


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
