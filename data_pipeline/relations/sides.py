"""What relations read of mentions, of entities, and of pairs of them."""

import dataclasses
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from data_pipeline.kb.folded_names import bare, fold
from data_pipeline.kb.knowledge_base import Finder, KnowledgeBase
from data_pipeline.relations import hashed
from data_pipeline.retrieval.forms import fullest
from data_pipeline.schema import Mention
from data_pipeline.store.split_arrays import unit

YEARS = 6  # of a text that count
GENERATION = 20.0  # years between which two are of different times
_YEAR = re.compile(r"(?<!\d)(1\d{3}|20\d{2})(?!\d)")
Columns = dict[str, np.ndarray]  # name of a value -> [n] float32, NaN where it is not known


@lru_cache(maxsize=1 << 17)  # candidates come again and again
def years(text: str) -> tuple[int, ...]:
    """The numbers from 1000 to 2099 in a text, in order."""
    return tuple(int(found) for found in _YEAR.findall(text))


@dataclasses.dataclass(frozen=True)
class Rarities:
    """What a hashed word of a description and a trigram of a name weigh in a knowledge base."""

    words: np.ndarray
    trigrams: np.ndarray

    @classmethod
    def of(cls, kb: KnowledgeBase) -> "Rarities":
        """Of its living rows."""
        held = {name: kb.column(name).to_pylist() for name in ("name", "description")}
        living = np.flatnonzero(kb.alive).tolist()
        texts = (f"{held['name'][i]} {held['description'][i]}" for i in living)
        names = (held["name"][i] for i in living)
        return cls(
            hashed.rarity(texts, hashed.words),
            hashed.rarity(names, hashed.trigrams),
        )


class EntitySide:
    """Some rows of a knowledge base.

    Args:
        rows: [u] of them.
        vectors: the frozen vectors [E,t] of all its rows; None: there are none.

    Attributes:
        rows: sorted, each once.
        names: as they are compared, without what stands in parentheses at their end.
        ids: of the entities.
        titles: as they are.
        described: name and description in one.
    """

    def __init__(self, kb: KnowledgeBase, rows: np.ndarray, weights: Rarities, vectors: Any = None):
        self.rows = np.unique(rows)
        self._weights, self._vectors = weights, vectors
        self._kb = kb
        self.titles: list[str] = kb.taken("name", self.rows)
        self.names = [bare(title) for title in self.titles]
        self.descriptions: list[str] = kb.taken("description", self.rows)
        self.described = [
            f"{title} {text}" for title, text in zip(self.titles, self.descriptions, strict=True)
        ]

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Where these rows of the knowledge base are in the tables."""
        return np.searchsorted(self.rows, rows)

    @cached_property
    def ids(self) -> list[str]:
        """Their ids."""
        return self._kb.taken("id", self.rows)

    @cached_property
    def words(self) -> hashed.Rows:
        """Words of name and description, [u,COLUMNS] at length 1."""
        return hashed.rows_of(self.described, hashed.words, self._weights.words)

    @cached_property
    def text_words(self) -> hashed.Rows:
        """[u,COLUMNS] a 1 for each word of the description."""
        return hashed.incidence(self.descriptions, hashed.words)

    @cached_property
    def name_words(self) -> hashed.Rows:
        """Words of the name without its parenthesis, weighted, at sum 1."""
        return _shares(self.names, self._weights)

    @cached_property
    def extra_words(self) -> hashed.Rows:
        """Words of the title beside those of its name, weighted, at sum 1."""
        behind = [t[len(n) :] for t, n in zip(self.titles, self.names, strict=True)]
        return _shares(behind, self._weights)

    @cached_property
    def forms(self) -> tuple[list[str], np.ndarray]:
        """Names [u] and behind them all aliases [a], as they are compared, and whose each of the
        aliases is, [a]."""
        aliases: list[list[str]] = self._kb.taken("aliases", self.rows)
        owner = np.repeat(np.arange(len(aliases)), [len(own) for own in aliases])
        return [*self.names, *(bare(alias) for own in aliases for alias in own)], owner

    @cached_property
    def trigrams(self) -> hashed.Rows:
        """Trigrams of the `forms`, at length 1."""
        return hashed.rows_of(self.forms[0], hashed.trigrams, self._weights.trigrams)

    @cached_property
    def folded(self) -> np.ndarray:
        """The `forms` [u+a], folded."""
        return np.array([fold(name) for name in self.forms[0]], object)

    @cached_property
    def years(self) -> np.ndarray:
        """[u,2] first and last year that title and description tell, NaN where there is none."""
        out = np.full((len(self.rows), 2), np.nan, np.float32)
        for i, text in enumerate(self.described):
            if found := years(text):
                out[i] = found[0], found[-1] if len(found) > 1 else np.nan
        return out

    @cached_property
    def vectors(self) -> np.ndarray:
        """Frozen vectors [u,t] at length 1; t is 0 where there are none."""
        return _unit_rows(self._vectors, self.rows)


class MentionSide:
    """Some mentions.

    Args:
        vectors: their frozen vectors [m,t]; None: there are none.
        component: [m] a number that mentions share which share a sample, a text or a picture,
            directly or through others; below 0 for one of which nothing is known.
        known: forms and words around them, where they have been found before.

    Attributes:
        forms: the fullest form in which each one's text names it.
    """

    def __init__(
        self,
        mentions: Sequence[Mention],
        finder: Finder,
        weights: Rarities,
        vectors: Any = None,
        component: np.ndarray | None = None,
        known: tuple[Sequence[str], hashed.Rows] | None = None,
    ):
        self.items = mentions
        self._finder, self._weights, self._vectors = finder, weights, vectors
        none = np.full(len(mentions), -1)
        self.component = none if component is None else component
        self._known = known
        self.forms = (
            [fullest(m.text, m.name, m.start, finder.knows) for m in mentions]
            if known is None
            else [*known[0]]
        )

    @cached_property
    def around_form(self) -> hashed.Rows:
        """[m,COLUMNS] a 1 for each word of the text that is not of the fullest form."""
        if self._known is not None:
            return self._known[1]
        pairs = zip(self.items, self.forms, strict=True)
        return hashed.table_of([_around(m.text, form) for m, form in pairs])

    @cached_property
    def words(self) -> hashed.Rows:
        """The same words weighted, at length 1."""
        return hashed.weighed(self.around_form, self._weights.words)

    @cached_property
    def text_words(self) -> hashed.Rows:
        """[m,COLUMNS] a 1 for each word of the text."""
        return hashed.incidence((m.text for m in self.items), hashed.words)

    @cached_property
    def around_words(self) -> hashed.Rows:
        """[m,COLUMNS] a 1 for each word of the text that is not of the surface form."""
        return hashed.table_of([_around(m.text, m.name) for m in self.items])

    @cached_property
    def trigrams(self) -> tuple[hashed.Rows, hashed.Rows]:
        """Trigrams of surface form and fullest form, at length 1."""
        sides = [m.name for m in self.items], self.forms
        first, second = (
            hashed.rows_of(some, hashed.trigrams, self._weights.trigrams) for some in sides
        )
        return first, second

    @cached_property
    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Surface forms and fullest forms [m], folded."""
        first = np.array([fold(m.name) for m in self.items], object)
        return first, np.array([fold(form) for form in self.forms], object)

    @cached_property
    def years(self) -> np.ndarray:
        """[m,YEARS] those in the text, NaN behind the last."""
        out = np.full((len(self.items), YEARS), np.nan, np.float32)
        for i, mention in enumerate(self.items):
            found = years(mention.text)[:YEARS]
            out[i, : len(found)] = found
        return out

    @cached_property
    def vectors(self) -> np.ndarray:
        """Frozen vectors [m,t] at length 1; t is 0 where there are none."""
        return _unit_rows(self._vectors, np.arange(len(self.items)))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of mentions and their candidates, those of one mention side by side.

    Attributes:
        mention: [n] row of the `MentionSide`.
        entity: [n] row of the `EntitySide`' tables.
        slot: [n] place among the mention's candidates.
    """

    mention: np.ndarray
    entity: np.ndarray
    slot: np.ndarray

    def __len__(self) -> int:
        return len(self.mention)

    def best(self, values: np.ndarray) -> np.ndarray:
        """The largest value of each pair's mention, [n]."""
        if not len(self):
            return values
        starts = np.flatnonzero(np.diff(self.mention, prepend=-1))
        sizes = np.diff(np.append(starts, len(self)))
        return np.repeat(np.maximum.reduceat(values, starts), sizes)


def _around(text: str, form: str) -> np.ndarray:
    """Where the words of a text count, without those of a form."""
    own, less = (hashed.columns(some, hashed.words) for some in (text, form))
    return np.setdiff1d(own, less, assume_unique=True)


def _shares(texts: Sequence[str], weights: Rarities) -> hashed.Rows:
    """Words of texts, weighted, at sum 1."""
    return hashed.weighed(hashed.incidence(texts, hashed.words), weights.words, norm=1)


def _unit_rows(table: Any, rows: np.ndarray) -> np.ndarray:
    if table is None or not table.shape[1]:
        return np.zeros((len(rows), 0), np.float32)
    return unit(np.asarray(table[rows], np.float32))
