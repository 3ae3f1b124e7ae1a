"""Relations over two edges: from a mention to training mentions, and on from their golds.

    rho(m, e) = pool over m' of k_m(m, m') k_e(gold(m'), e)

All of them read training golds. Of what m could be read off, nothing is in the pool: no m' of its
own component, which are the mentions that share a sample, a text or a picture with it, directly or
through others. So a training mention never sees itself.
"""

import copy
from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy import sparse

from data_pipeline.relations import hashed
from data_pipeline.relations.sides import GENERATION, Columns, EntitySide, MentionSide, Pairs

MOST = 50  # training mentions of one entity that are looked at
NEIGHBOURS = 40
ALIKE = 1e-5  # two that differ by less may be equal but for rounding
SHARPNESS = 0.05  # temperature of the softmax over neighbours


class Memory:
    """Training mentions and their golds.

    Args:
        mentions: those whose gold is in the knowledge base, with vectors and component.
        gold: [t] rows of the knowledge base.
        entities: that hold these rows.
    """

    def __init__(self, mentions: MentionSide, gold: np.ndarray, entities: EntitySide):
        self.mentions, self.gold, self.entities = mentions, gold, entities
        self._moved: tuple[np.ndarray, np.ndarray] | None = None
        surfaces = mentions.folded[0]
        self._surface = {form: i for i, form in enumerate(dict.fromkeys(surfaces))}
        self.surface = self.surfaces(surfaces)
        own = mentions.component
        wide = np.int64(gold.max(initial=0) + 1), np.int64(own.max(initial=0) + 1)
        self._entities, self._components = wide
        self._said = np.sort(self.surface * wide[0] + gold)
        self._said_here = np.sort((self.surface * wide[0] + gold) * wide[1] + own)
        self._named = np.sort(gold.astype(np.int64))
        self._named_here = np.sort(gold.astype(np.int64) * wide[1] + own)
        self.by_gold = np.argsort(gold, kind="stable")
        self._golds = gold[self.by_gold]

    def __len__(self) -> int:
        return len(self.gold)

    def moved(self, old: np.ndarray, new: np.ndarray) -> "Memory":
        """The same for a knowledge base in which rows [k] of golds are others."""
        other = copy.copy(self)
        order = np.argsort(new, kind="stable")
        other._moved = new[order], old[order]
        return other

    def rows(self, e: EntitySide) -> np.ndarray:
        """The row of each of the entities in the knowledge base of training, [u] int64; beyond all
        of them for one that was nobody's gold, or only where rows have not moved."""
        if self._moved is None:
            return e.rows.astype(np.int64)
        new, old = self._moved
        if not len(new):
            return np.full(len(e.rows), self._entities)
        place = np.minimum(np.searchsorted(new, e.rows), len(new) - 1)
        return np.where(new[place] == e.rows, old[place], self._entities)

    def surfaces(self, folded: np.ndarray) -> np.ndarray:
        """The number of each folded surface form, -1 for one that no training mention has."""
        return np.array([self._surface.get(form, -1) for form in folded], np.int64)

    def votes(self, surface: np.ndarray, rows: np.ndarray, component: np.ndarray) -> np.ndarray:
        """How many training mentions of a surface have this gold, those of the component apart."""
        key = surface * self._entities + rows
        found = _count(self._said, key) - self._here(self._said_here, key, component)
        return np.where((surface >= 0) & (rows < self._entities), found, 0)

    def of_golds(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in `by_gold` the training mentions of each of these begin and end."""
        first, last = (np.searchsorted(self._golds, rows, side) for side in ("left", "right"))
        return first, last

    def popularity(self, rows: np.ndarray, component: np.ndarray) -> np.ndarray:
        """How many training mentions have this gold, those of the component apart."""
        rows = rows.astype(np.int64)
        return _count(self._named, rows) - self._here(self._named_here, rows, component)

    def _here(self, table: np.ndarray, key: np.ndarray, component: np.ndarray) -> np.ndarray:
        known = (component >= 0) & (component < self._components)
        return np.where(known, _count(table, key * self._components + component), 0)

    @cached_property
    def by_word(self) -> sparse.csr_array:
        """Words of each text, [COLUMNS,t]."""
        return sparse.csr_array(self.mentions.words.scipy.T)

    @cached_property
    def gold_words(self) -> hashed.Rows:
        """Words of each gold, [t,COLUMNS] at length 1."""
        return hashed.Rows.of(self.entities.words.scipy[self.entities.at(self.gold)])

    @cached_property
    def gold_vectors(self) -> np.ndarray:
        """Frozen vectors of the golds [t,d]."""
        return self.entities.vectors[self.entities.at(self.gold)]

    @cached_property
    def gold_years(self) -> np.ndarray:
        """First year of each gold [t], NaN where there is none."""
        return self.entities.years[self.entities.at(self.gold), 0]


def votes(m: MentionSide, e: EntitySide, p: Pairs, memory: Memory) -> Columns:
    """What the surface form, and the fullest form, meant in training, and how often the candidate
    was meant at all."""
    component, rows = m.component[p.mention], memory.rows(e)[p.entity]
    out: Columns = {}
    for kind, asked in zip(("surface", "form"), m.folded, strict=True):
        surface = memory.surfaces(asked)[p.mention]
        counts = memory.votes(surface, rows, component).astype(np.float32)
        total = _sums(p, counts)
        out[f"votes of the {kind}"] = np.log1p(counts)
        out[f"share of the {kind}"] = counts / (total + 1)
        out[f"others of the {kind}"] = np.log1p(total - counts)
    out["named in training"] = np.log1p(memory.popularity(rows, component))
    return out


def exemplars(m: MentionSide, e: EntitySide, p: Pairs, memory: Memory) -> Columns:
    """The training mention of the candidate whose text is most like this one, by vectors and by
    words."""
    rows = memory.rows(e)[p.entity]
    begin, end = memory.of_golds(rows)
    pair, place = hashed.ranges(begin, end - begin)
    other = memory.by_gold[place]
    own = m.component[p.mention[pair]]
    apart = (own < 0) | (own != memory.mentions.component[other])
    pair, other = pair[apart], other[apart]
    first = np.arange(len(pair)) - np.searchsorted(pair, pair) < MOST  # of those that may be seen
    pair, other = pair[first], other[first]
    mine = p.mention[pair]
    out: Columns = {}
    alike = {"words": hashed.products(m.words, mine, memory.mentions.words, other)}
    if m.vectors.shape[1]:
        pairs = m.vectors[mine], memory.mentions.vectors[other]
        alike["vectors"] = np.einsum("nd,nd->n", *pairs)
    for kind in ("words", "vectors"):
        best = np.full(len(p), -np.inf, np.float32)
        np.maximum.at(best, pair, alike.get(kind, np.full(len(pair), -np.inf, np.float32)))
        out[f"nearest exemplar, {kind}"] = np.where(np.isinf(best), np.nan, best)
    return out


def neighbours(m: MentionSide, e: EntitySide, p: Pairs, memory: Memory) -> Columns:
    """Training mentions of other surface forms whose texts are most like this one: how like their
    golds are to the candidate, in words, vectors and time."""
    out: Columns = {}
    kernels: dict[str, Callable[[], np.ndarray]] = {
        "vectors": lambda: m.vectors @ memory.mentions.vectors.T,
        "words": lambda: (m.words.scipy @ memory.by_word).toarray(),
    }
    own, surface = m.component[:, None], memory.surfaces(m.folded[0])[:, None]
    barred = np.where(surface >= 0, surface, -2) == memory.surface
    if (own >= 0).any():
        barred |= (own >= 0) & (own == memory.mentions.component)
    k = min(NEIGHBOURS, len(memory))
    for kind, alike in kernels.items():
        if kind == "vectors" and not m.vectors.shape[1]:
            for value in ("words", "vectors", "years"):
                out[f"neighbours by {kind}: {value}"] = np.full(len(p), np.nan, np.float32)
            continue
        similar = alike()
        similar[barred] = -np.inf
        near = likest(similar, k)
        weight = _softmax(np.take_along_axis(similar, near, 1) / SHARPNESS)
        profile = hashed.mixed(memory.gold_words, near, weight)
        out[f"neighbours by {kind}: words"] = hashed.products(profile, p.mention, e.words, p.entity)
        if memory.gold_vectors.shape[1]:
            mean = np.einsum("mk,mkd->md", weight, memory.gold_vectors[near])
            pairs = mean[p.mention], e.vectors[p.entity]
            out[f"neighbours by {kind}: vectors"] = np.einsum("nd,nd->n", *pairs)
        else:
            out[f"neighbours by {kind}: vectors"] = np.full(len(p), np.nan, np.float32)
        apart = np.abs(memory.gold_years[near][p.mention] - e.years[p.entity, :1])
        known = ~np.isnan(apart)
        weight = np.where(known, weight[p.mention], 0)
        total = (weight * np.exp(-np.where(known, apart, 0) / GENERATION)).sum(1)
        whole = weight.sum(1)
        out[f"neighbours by {kind}: years"] = np.where(
            whole > 0.05, total / np.maximum(whole, 1e-6), np.nan
        )
    return out


def likest(similar: np.ndarray, k: int) -> np.ndarray:
    """Columns [m,k] of the k largest cosines of each row; those that are alike but for rounding,
    which differs from batch to batch, in their order."""
    m, t = similar.shape
    deep = max(1, t // (8 * k))  # the k-th of the columns' sets' largest is no larger than the k-th
    sets = similar[:, : t // deep * deep].reshape(m, deep, -1).max(1)
    least = np.partition(sets, sets.shape[1] - k, axis=1)[:, -k, None]
    kept = similar >= least - 3 * ALIKE  # whatever may be among them
    many = np.flatnonzero(least == 0)  # of all that share no word, the first k do
    if len(many):
        own = similar[many]
        wide = k + int(np.count_nonzero(own, axis=1).max())
        kept[many] = own > 0
        kept[many, :wide] |= own[:, :wide] == 0
    there = np.flatnonzero(kept)
    row, column = np.divmod(there, t)
    steps = np.round(np.maximum(similar.ravel()[there], -2).astype(np.float64) / ALIKE)
    below = (2 / ALIKE - steps).astype(np.int64)  # the largest first
    key = np.sort((row * int(4 / ALIKE + 2) + below) * t + column)
    starts = np.searchsorted(row, np.arange(m))
    return key[starts[:, None] + np.arange(k)] % t


def _count(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    first, last = (np.searchsorted(table, keys, side) for side in ("left", "right"))
    return np.asarray(last - first)


def _sums(p: Pairs, values: np.ndarray) -> np.ndarray:
    """The sum over each pair's mention, [n]."""
    return np.bincount(p.mention, values)[p.mention].astype(np.float32)


def _softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis; zeros where all of it is -inf."""
    top = np.max(x, axis=-1, keepdims=True)
    found = np.exp(x - np.where(np.isinf(top), 0, top))
    return (found / np.maximum(found.sum(-1, keepdims=True), 1e-30)).astype(np.float32)
