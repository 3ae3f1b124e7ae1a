"""Other entities that a mention's text names in full, and how they go with a candidate."""

import re
from functools import lru_cache

import numpy as np

from data_pipeline.kb.folded_names import fold
from data_pipeline.kb.knowledge_base import Finder, KnowledgeBase
from data_pipeline.relations import hashed
from data_pipeline.relations.sides import (
    GENERATION,
    Columns,
    EntitySide,
    MentionSide,
    Pairs,
    Rarities,
)

MOST = 6  # entities of a text
WORDS = (5, 4, 3, 2)  # of a name, the longest first
CHARACTERS = 3000  # of a text that are looked through
_WORD = re.compile(r"[^\W_]+(?:[.\-'’][^\W_]+)*")


class Named:
    """Finds the entities that texts name, each text once."""

    def __init__(self, finder: Finder):
        self._finder = finder
        self.rows = lru_cache(maxsize=1 << 12)(self._rows)

    def _rows(self, text: str) -> tuple[tuple[int, str], ...]:
        """Row and folded name of each entity whose name of several words the text has."""
        words = [match.span() for match in _WORD.finditer(text[:CHARACTERS])]
        taken = np.zeros(len(words), bool)
        found: dict[int, str] = {}
        for n in WORDS:
            for i in range(len(words) - n + 1):
                if len(found) == MOST:
                    break
                begin, end = words[i][0], words[i + n - 1][1]
                if taken[i : i + n].any() or not text[begin].isupper():
                    continue
                form = fold(text[begin:end])
                if self._finder.knows(form):
                    taken[i : i + n] = True
                    for row in self._finder.names(form, 1)[0].tolist():
                        found.setdefault(row, form)
        return tuple(found.items())


def companions(m: MentionSide, named: Named) -> tuple[np.ndarray, np.ndarray]:
    """Pairs [k] of a mention and the row of an entity that its text names beside it."""
    mention, rows = [], []
    for i, (item, form) in enumerate(zip(m.items, m.folded[1], strict=True)):
        own = set(form.split())
        for row, name in named.rows(item.text):
            if not own <= set(name.split()):
                mention.append(i)
                rows.append(row)
    return np.array(mention, np.int64), np.array(rows, np.int64)


def context(
    m: MentionSide,
    e: EntitySide,
    p: Pairs,
    kb: KnowledgeBase,
    named: Named,
    weights: Rarities,
    vectors,
) -> Columns:
    """How like the candidate is to entities that the text names beside the mention: in words, in
    vectors, in time, whether it is one of them, and whether either's description names the other.
    """
    mention, rows = companions(m, named)
    out: Columns = {
        name: np.full(len(p), np.nan, np.float32)
        for name in ("words", "vectors", "years", "is named", "name told")
    }
    if len(rows):
        others = EntitySide(kb, rows, weights, vectors)
        first = np.searchsorted(mention, np.arange(len(m.items)))
        counts = np.bincount(mention, minlength=len(m.items))
        pair, place = hashed.ranges(first[p.mention], counts[p.mention])
        other = others.at(rows[place])
        entity = p.entity[pair]
        same = others.rows[other] == e.rows[entity]
        apart = np.abs(others.years[other, 0] - e.years[entity, 0])
        told = np.maximum(
            hashed.products(others.text_words, other, e.name_words, entity),
            hashed.products(e.text_words, entity, others.name_words, other),
        )
        values = {
            "words": np.where(same, -np.inf, hashed.products(others.words, other, e.words, entity)),
            "is named": same,
            "name told": np.where(same, -np.inf, told),
            "years": np.where(same | np.isnan(apart), -np.inf, np.exp(-apart / GENERATION)),
        }
        if e.vectors.shape[1]:
            cosine = np.einsum("nd,nd->n", others.vectors[other], e.vectors[entity])
            values["vectors"] = np.where(same, -np.inf, cosine)
        for name, value in values.items():
            best = np.full(len(p), -np.inf, np.float32)
            np.maximum.at(best, pair, value.astype(np.float32))
            out[name] = np.where(np.isinf(best), np.nan, best)
    return {f"beside it: {name}": value for name, value in out.items()}
