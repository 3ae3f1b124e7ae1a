"""The first stage of a model over a knowledge base, asked again and again."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import Finder, KnowledgeBase
from data_pipeline.retrieval import names
from data_pipeline.retrieval.union import Among
from data_pipeline.schema import PADDING, Mention, UserError
from data_pipeline.store.split_arrays import cosine
from drin_jax.config import flat
from drin_jax.extract.pairs import VECTORS, unite
from drin_jax.extract.vector_retrieval import searcher

METHODS = ("union", "vectors", "names")
Table = Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """Candidates of n mentions: rows [n,r] int32, PADDING for none, their scores [n,r], and of the
    union `ranks` and `scores` [n,r,s] by its stages."""

    rows: np.ndarray
    scores: np.ndarray
    by_stage: Mapping[str, np.ndarray]


class FirstStage:
    """Finds the candidates of new mentions as the store of a config has them.

    Raises:
        UserError: the config's first stage reads more than a knowledge base and a mention.
    """

    def __init__(self, config: ConfigDict, kb: KnowledgeBase, finder: Finder):
        self._method, self._kb, self._finder = flat(config)["retrieval.method"], kb, finder
        if self._method not in METHODS:
            raise UserError(
                f"the model's candidates come from retrieval.method = {self._method!r}, which "
                f"finds none for a new mention; train one with {' or '.join(METHODS)}"
            )
        self._scorer = config.retrieval.scorer
        kind = "text" if self._method == "union" else config.retrieval.vectors
        self._mine, self._theirs = VECTORS[kind]
        if self._method == "names":
            self._living = np.flatnonzero(kb.alive)
            self._names = kb.taken("name", self._living)
        else:
            self._search = searcher(kb, self._theirs)

    def __call__(
        self, mentions: Sequence[Mention], r: int, table: Table, among: Among
    ) -> Shortlist:
        """The r best candidates of each mention.

        Args:
            table: the array of a name.
            among: of each mention, the rows that it may mean; None: any.
        """
        if self._method == "union":
            found = unite(mentions, self._kb, self._finder, r, table, self._search, among)
            by_stage = {"ranks": found.ranks, "scores": found.evidence}
            return Shortlist(found.rows, found.scores, by_stage)
        rows, scores = self._best(mentions, min(r, len(self._kb)), table)
        more = ((0, 0), (0, r - rows.shape[1]))
        rows = np.pad(rows, more, constant_values=PADDING)
        scores = np.pad(scores, more)
        for i, wanted in enumerate(among):
            if wanted is not None:
                rows[i], scores[i] = self._among(mentions[i], i, wanted, r, table)
        return Shortlist(rows.astype(np.int32), scores.astype(np.float32), {})

    def _best(
        self, mentions: Sequence[Mention], r: int, table: Table
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._method == "vectors":
            return self._search(table(self._mine), r)
        asked = [mention.name for mention in mentions]
        rows, scores = names.by_name(self._names, asked, r, scorer=self._scorer)
        return np.where(rows == PADDING, PADDING, self._living[rows]), scores

    def _among(
        self, mention: Mention, at: int, wanted: np.ndarray, r: int, table: Table
    ) -> tuple[np.ndarray, np.ndarray]:
        """The r best of the wanted rows, and their scores."""
        if self._method == "vectors":
            own, theirs = table(self._mine)[at], np.asarray(table(self._theirs)[wanted])
            found = cosine(own[None], theirs)
        else:
            own_rows = np.arange(len(wanted))[None]
            titles = self._kb.taken("name", wanted)
            found = names.of_pairs(titles, [mention.name], own_rows, self._scorer)[0]
        order = np.argsort(-found, kind="stable")[:r]
        rows, scores = np.full(r, PADDING), np.zeros(r, np.float32)
        rows[: len(order)], scores[: len(order)] = wanted[order], found[order]
        return rows, scores
