"""All relations of all mentions with their candidates: what a store keeps of them.

Values are standardised over the pairs of the train split, cut at CUT, and 0 where they are not
known, so that what is missing is the mean.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipeline import splits
from data_pipeline.kb.knowledge_base import Finder, KnowledgeBase
from data_pipeline.kb.text_index import text_index
from data_pipeline.output import Progress
from data_pipeline.relations import direct, memory
from data_pipeline.relations.association import FOLDS, Association, Kept, described_words, folds
from data_pipeline.relations.context import Named, context
from data_pipeline.relations.hashed import Rows
from data_pipeline.relations.memory import Memory
from data_pipeline.relations.sides import Columns, EntitySide, MentionSide, Pairs, Rarities
from data_pipeline.schema import CUT, EVIDENCE, EVIDENCE_COLUMNS, PADDING, SPLITS, Mention
from data_pipeline.store.reader import Store

BLOCK = 256  # mentions at once
QUIET_MENTIONS = 5_000
VECTORS = ("mention_text_edge", "entity_text_edge")


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """Candidates of n mentions, as a store has them.

    Attributes:
        rows: [n,r] of the knowledge base, PADDING for none.
        score: [n,r] by which they are ordered.
        edges: [n,4,r] the paper's relations.
        ranks, scores: [n,r,s] by each stage of the union; None where it was another first stage.
    """

    rows: np.ndarray
    score: np.ndarray
    edges: np.ndarray
    ranks: np.ndarray | None = None
    scores: np.ndarray | None = None

    @classmethod
    def of(cls, store: Store, split: str) -> "Retrieved":
        """Those of a split."""
        stages = [
            np.asarray(store.array(f"{split}_{name}")) if f"{split}_{name}" in store.specs else None
            for name in ("retrieval_rank", "retrieval_evidence")
        ]
        names = ("candidates", "retrieval_score", "edges")
        return cls(*(np.asarray(store.array(f"{split}_{name}")) for name in names), *stages)

    def __getitem__(self, some: slice) -> "Retrieved":
        held = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(self, **{name: value[some] for name, value in held.items()})


@dataclasses.dataclass(frozen=True)
class Remembered:
    """What relations keep of training: the t mentions whose gold is in the knowledge base.

    Attributes:
        mentions: themselves.
        gold: [t] their golds' rows.
        component: [t] of `components`.
        retrieved: [t,r] rows of their candidates.
        vectors: [t,d] their frozen vectors.
        weights: of words in the knowledge base that they were trained on.
        known: the fullest form of each mention by the names in there, and the words [t,COLUMNS]
            around them; None: found when they are asked for.
        association: what new mentions read of it; None: counted when it is asked.
    """

    mentions: Sequence[Mention]
    gold: np.ndarray
    component: np.ndarray
    retrieved: np.ndarray
    vectors: Any
    weights: Rarities
    known: tuple[Sequence[str], Rows] | None = None
    association: Kept | None = None

    @classmethod
    def of(cls, store: Store, mentions: Sequence[Mention], component: np.ndarray) -> "Remembered":
        """Those of a store.

        Args:
            mentions: the store's, in its order.
            component: [M] of each of them.
        """
        golds = np.asarray(store.array("train_gold_entity"))
        there = np.flatnonzero(golds >= 0)
        rows = np.asarray(store.array("train_mention"))[there]
        return cls(
            [mentions[i] for i in rows],
            golds[there].astype(np.int64),
            component[rows],
            np.asarray(store.array("train_candidates"))[there],
            store.array(VECTORS[0])[rows],
            Rarities.of(store.kb),
        )


class Relations:
    """Computes the evidence of mentions over a knowledge base, given what is remembered of training
    on it.

    Args:
        vectors: frozen vectors [E,t] of its entities.
    """

    def __init__(self, kb: KnowledgeBase, vectors: Any, remembered: Remembered):
        self.kb, self.vectors = kb, vectors
        self.finder: Finder = text_index(kb)
        self.named = Named(self.finder)
        self.weights, gold = remembered.weights, remembered.gold
        kept = remembered.vectors, remembered.component, remembered.known
        mentions = self.mentions(remembered.mentions, *kept)
        self.memory = Memory(mentions, gold, self.entities(gold))
        self._remembered = np.unique(remembered.component)
        if not len(gold):
            return  # what reads golds is not known
        if remembered.association is not None:
            self.association = Association.of_table(remembered.association)
            return
        retrieved = remembered.retrieved
        entities = self.entities(np.append(gold, retrieved[retrieved != PADDING]))
        self.association = Association(
            mentions.around_form,
            described_words(entities),
            pairs_of(retrieved, entities),
            entities.at(gold),
            folds(remembered.component),
        )

    def over(self, kb: KnowledgeBase, vectors: Any, finder: Finder) -> "Relations":
        """The same over another knowledge base, or this one as it has become. What is remembered
        of an entity holds for the one of its id there."""
        other = copy.copy(self)
        other.kb, other.vectors, other.finder = kb, vectors, finder
        other.named = Named(finder)
        old = np.unique(self.memory.gold)
        new = kb.find(self.memory.entities.ids)
        other.memory = self.memory.moved(old[new != PADDING], new[new != PADDING])
        return other

    def entities(self, rows: np.ndarray) -> EntitySide:
        """These rows of the knowledge base."""
        return EntitySide(self.kb, rows, self.weights, self.vectors)

    def mentions(
        self,
        items: Sequence[Mention],
        vectors: Any,
        component: np.ndarray | None = None,
        known: tuple[Sequence[str], Rows] | None = None,
    ) -> MentionSide:
        """These mentions; `component` None: they share nothing with any training mention."""
        return MentionSide(items, self.finder, self.weights, vectors, component, known)

    def __call__(self, m: MentionSide, retrieved: Retrieved, pictures: np.ndarray) -> np.ndarray:
        """The evidence [m,r,k] float32 of mentions with their candidates, NaN where it is not
        known and where there is no candidate; k in the order of `EVIDENCE`.

        Args:
            pictures: [m,r,2] whether the mention, and the candidate, has a picture.
        """
        rows = retrieved.rows
        e = self.entities(rows[rows != PADDING])
        p = pairs_of(rows, e)
        at = p.mention, p.slot
        seen = pictures[at]
        there = np.stack([seen[:, 1], seen[:, 0], seen.all(1)], 1)
        stages = [
            some if some is None else some[at] for some in (retrieved.ranks, retrieved.scores)
        ]
        found: dict[str, Columns] = {
            "names": direct.names(m, e, p),
            "words": direct.words(m, e, p),
            "years": direct.years(m, e, p),
            "vectors": direct.vectors(m, e, p),
            "pictures": direct.pictures(p, np.moveaxis(retrieved.edges, 1, 2)[at][:, 1:], there),
            "retrieval": direct.retrieval(p, retrieved.score[at], *stages),
            "context": context(m, e, p, self.kb, self.named, self.weights, self.vectors),
        }
        if len(self.memory):
            place = np.searchsorted(self._remembered, m.component)
            nearest = self._remembered[np.minimum(place, len(self._remembered) - 1)]
            fold = np.where(nearest == m.component, folds(m.component), FOLDS)
            found |= {
                "votes": memory.votes(m, e, p, self.memory),
                "exemplars": memory.exemplars(m, e, p, self.memory),
                "neighbours": memory.neighbours(m, e, p, self.memory),
                "association": self.association(m.around_form, described_words(e), p, fold),
            }
        own = np.full((len(EVIDENCE_COLUMNS), len(p)), np.nan, np.float32)
        named = ((relation, value) for relation in EVIDENCE for value in EVIDENCE[relation])
        for column, (relation, value) in zip(own, named, strict=True):
            if relation in found:
                column[:] = found[relation][value]
        out = np.full((*rows.shape, len(own)), np.nan, np.float32)
        out[at] = own.T
        return out


def reading(store: Store, mentions: Sequence[Mention]) -> tuple[Relations, np.ndarray]:
    """What computes evidence with a store's training mentions for a memory, and the component [M]
    of each of the store's `mentions`, which are given in its order."""
    component = components(mentions)
    remembered = Remembered.of(store, mentions, component)
    return Relations(store.kb, store.array(VECTORS[1]), remembered), component


def of_store(store: Store, mentions: Sequence[Mention]) -> Iterator[tuple[str, np.ndarray]]:
    """The evidence of every split of a store, and its scale first, each with its array's name.

    Args:
        mentions: the store's, in its order.
    """
    relations, component = reading(store, mentions)
    own = store.array(VECTORS[0])
    found = {split: Retrieved.of(store, split) for split in SPLITS}
    rows = {split: np.asarray(store.array(f"{split}_mention")) for split in SPLITS}
    has = [np.asarray(store.array(f"{side}_has_image")) for side in ("mention", "entity")]

    def of_split(split: str) -> Iterator[np.ndarray]:
        for begin in range(0, len(rows[split]), BLOCK):
            some = rows[split][begin : begin + BLOCK]
            retrieved = found[split][begin : begin + BLOCK]
            pictures = np.stack(
                np.broadcast_arrays(has[0][some][:, None], has[1][retrieved.rows]), 2
            )
            m = relations.mentions([mentions[i] for i in some], own[some], component[some])
            yield relations(m, retrieved, pictures)
            bar.advance(len(some))

    total = len(mentions)
    with Progress("relations", total, unit="mentions", loud=total > QUIET_MENTIONS) as bar:
        scale: np.ndarray | None = None
        for split in SPLITS:
            shape = (*found[split].rows.shape, len(EVIDENCE_COLUMNS))
            values = np.concatenate([np.zeros((0, *shape[1:]), np.float32), *of_split(split)])
            if scale is None:
                scale = scale_of(values)
                yield "evidence_scale", scale
            yield f"{split}_evidence", standardised(values, scale)


def scale_of(values: np.ndarray) -> np.ndarray:
    """Mean and spread [2,k] of what is known of each value; 0 and 1 where nothing is."""
    flat = values.reshape(-1, values.shape[-1])
    known = ~np.isnan(flat)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, flat, 0).sum(0, dtype=np.float64) / count
    square = np.where(known, flat - mean, 0)
    spread = np.sqrt(np.square(square).sum(0, dtype=np.float64) / count)
    return np.stack([mean, np.where(spread < 1e-6, 1, spread)]).astype(np.float32)


def standardised(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Values less their mean in units of their spread, cut at CUT, float16; 0 where unknown."""
    found = np.clip((values - scale[0]) / scale[1], -CUT, CUT)
    return np.nan_to_num(found, copy=False, nan=0.0).astype(np.float16)


def pairs_of(rows: np.ndarray, e: EntitySide) -> Pairs:
    """The pairs of n mentions and their candidates [n,r]."""
    mention, slot = np.nonzero(rows != PADDING)
    return Pairs(mention, e.at(rows[mention, slot]), slot)


def components(mentions: Sequence[Mention]) -> np.ndarray:
    """[M] the number of the component of each mention: those that share a sample, a text or a
    picture, directly or through others."""
    group = splits.groups(mentions)
    return np.unique([group[mention.sample] for mention in mentions], return_inverse=True)[1]
