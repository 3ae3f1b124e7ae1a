"""Association: which words of a text go with which words of what is meant.

    a(w, v) = log (G(w, v) + 1/2) / (O(w, v) + 1/2)

G counts how often a training text with the word w has a gold with the word v; O how often its
other candidates have v, on average over them. A pair of a text and an entity gets the sum and the
mean of a over their words. Words are hashed, and the
years of a description count as their quarter of a century. It reads training golds: those of other
folds alone, where a fold holds whole components.
"""

import re
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse

from data_pipeline.relations import hashed
from data_pipeline.relations.sides import Columns, EntitySide, Pairs, years

FOLDS = 5
CONTEXT, DESCRIPTION = 6000, 2500  # words of either side that count, the most frequent
LEAST = 3  # training mentions that a word must be in
HALF = 0.5  # added to every count
_NUMBER = re.compile(r"\d{3,}")


class Kept(NamedTuple):
    """What is kept of an association for new mentions: the columns [c] of words of texts and [d] of
    entities that count, and the table [c,d] of all folds."""

    context: np.ndarray
    description: np.ndarray
    table: np.ndarray


class Association:
    """Tables of association, one for each fold of the training mentions and one of them all.

    Args:
        texts: [t,COLUMNS] words of the training texts around their mentions.
        described: [u,COLUMNS] words of entities.
        pairs: of training mentions [t] and their candidates, rows of `described`. Their words,
            whichever of them are gold, are those that count.
        gold: [t] rows of `described`.
        fold: [t] of each training mention.
    """

    def __init__(
        self,
        texts: hashed.Rows,
        described: hashed.Rows,
        pairs: Pairs,
        gold: np.ndarray,
        fold: np.ndarray,
    ):
        self.context = _places(_frequent(texts, np.ones(len(fold)), CONTEXT))
        times = np.bincount(pairs.entity, minlength=len(described))
        self.description = _places(_frequent(described, times, DESCRIPTION))
        left = _kept(texts, self.context).scipy
        right = _kept(described, self.description).scipy
        others = pairs.entity != gold[pairs.mention]
        mention, entity = pairs.mention[others], pairs.entity[others]
        count = np.bincount(mention, minlength=len(fold))
        per = (1 / np.maximum(count, 1)).astype(np.float32)[mention]
        shape = (len(fold), len(described))
        mean = sparse.csr_array(sparse.coo_array((per, (mention, entity)), shape=shape))
        self._left, self._sides, self._fold = left, (right[gold], mean @ right), fold
        self._tables: dict[int, np.ndarray] = {}

    @classmethod
    def of_table(cls, kept: Kept) -> "Association":
        """What new mentions read of another one, by its `kept`."""
        new = cls.__new__(cls)
        new.context, new.description = _places(kept.context), _places(kept.description)
        new._tables = {FOLDS: kept.table}
        return new

    @property
    def kept(self) -> Kept:
        """The table of all folds, with what its places stand for."""
        context, description = (np.flatnonzero(x >= 0) for x in (self.context, self.description))
        return Kept(context, description, self.table(FOLDS))

    def table(self, fold: int) -> np.ndarray:
        """a of every word of a text and every word of an entity, without this fold; FOLDS: of all.
        Made when it is first asked for: a new mention needs one of them."""
        if fold not in self._tables:
            counts = self._total
            if fold != FOLDS:
                own = self._counts(fold)
                counts = [every - part for every, part in zip(counts, own, strict=True)]
            self._tables[fold] = _log_odds(*counts)
        return self._tables[fold]

    @cached_property
    def _total(self) -> list[np.ndarray]:
        parts = [self._counts(fold) for fold in range(FOLDS)]
        return [sum(some[1:], some[0]) for some in zip(*parts, strict=True)]

    def _counts(self, fold: int) -> list[np.ndarray]:
        """G and O of a fold alone."""
        own = np.flatnonzero(self._fold == fold)
        mine = sparse.csr_array(self._left[own].T)
        return [(mine @ side[own]).toarray() for side in self._sides]

    def __call__(
        self,
        texts: hashed.Rows,
        described: hashed.Rows,
        p: Pairs,
        fold: np.ndarray,
    ) -> Columns:
        """Sum and mean of a over the words of each pair.

        Args:
            fold: [m] whose table each mention is read from; FOLDS: that of all.
        """
        left, right = _kept(texts, self.context), _kept(described, self.description)
        total = np.zeros(len(p), np.float32)
        for k in np.unique(fold).tolist():
            own = np.flatnonzero(fold[p.mention] == k)
            sums = left.scipy @ self.table(k)
            pair, term = right.places(p.entity[own])
            said = sums[p.mention[own][pair], right.indices[term]]
            total[own] = np.bincount(pair, said, minlength=len(own))
        described_by = right.sizes[p.entity]
        words = left.sizes[p.mention] * described_by
        return {
            "association": total / np.maximum(words, 1) * 10,
            "association, summed": total / np.sqrt(np.maximum(described_by, 1)),
        }


def described_words(e: EntitySide) -> hashed.Rows:
    """[u,COLUMNS] words of entities as association reads them."""
    return hashed.incidence(e.described, _terms)


def folds(component: np.ndarray) -> np.ndarray:
    """A fold for each component, by its number alone."""
    return (component.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)).astype(
        np.int64
    ) % FOLDS


def _terms(text: str) -> list[str]:
    return [
        *(word for word in hashed.words(text) if not _NUMBER.search(word)),
        *(f"quarter {year // 25}" for year in years(text)),
    ]


def _frequent(table: hashed.Rows, times: np.ndarray, most: int) -> np.ndarray:
    """The columns most often set, each row counted so many times."""
    weights = np.repeat(times, table.sizes)
    counts = np.bincount(table.indices, weights, minlength=hashed.COLUMNS)
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(order[counts[order] >= LEAST])


def _places(columns: np.ndarray) -> np.ndarray:
    """[COLUMNS] the place of each column among those that count, -1 for the others."""
    out = np.full(hashed.COLUMNS, -1, np.int32)
    out[columns] = np.arange(len(columns))
    return out


def _kept(table: hashed.Rows, places: np.ndarray) -> hashed.Rows:
    """The columns that count."""
    place = places[table.indices]
    there = place >= 0
    starts = np.append(0, np.cumsum(there))[table.indptr]
    return hashed.Rows(table.data[there], place[there], starts, int(places.max(initial=-1)) + 1)


def _log_odds(gold: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.log((gold + HALF) / (other + HALF)).astype(np.float32)
