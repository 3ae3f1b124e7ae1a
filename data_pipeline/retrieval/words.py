"""Which words texts and entities share: BM25 over unique words, by how rare they are.

    words(text, e) = Σ_{w in both} idf(w) g(e) / (g_max Σ_{w in text} idf(w))
    idf(w) = log(1 + (E - E_w + 0.5) / (E_w + 0.5))                     E_w entities have w
    g(e) = (1 + k) / (1 + k (1 - b + b length(e) / mean length))        g_max: at length 0

Words are runs of letters and digits, case folded.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from data_pipeline.retrieval.names import largest
from data_pipeline.schema import PADDING

# BM25's k and b: how much an entity's length counts, and how much it is held against it.
SATURATION, LENGTH = 1.2, 0.25

# Words of more than this share of the entities find nobody (they still count in the score): their
# posting lists would be most of the work.
COMMON = 0.05
PRODUCTS = 20_000_000  # postings read at once, 12 bytes each


class Words:
    """Which words entities and texts share, as sparse matrices.

    Attributes:
        text_of: [N] the distinct text of each given one.
    """

    def __init__(self, entities: Sequence[str], texts: Sequence[str]) -> None:
        vocabulary: dict[str, int] = {}
        have = _incidence(entities, vocabulary, grow=True)
        distinct: dict[str, int] = {}
        self.text_of = np.array([distinct.setdefault(text, len(distinct)) for text in texts])
        self._asked = _incidence(list(distinct), vocabulary, grow=False)
        length = np.diff(have.indptr).astype(np.float32)
        longer = length / max(float(length.mean()), 1.0)
        gain = (1 + SATURATION) / (1 + SATURATION * (1 - LENGTH + LENGTH * longer))
        documents = np.bincount(have.indices, minlength=len(vocabulary))
        rarity = np.log1p((len(entities) - documents + 0.5) / (documents + 0.5)).astype(np.float32)
        have.data = np.repeat(gain, np.diff(have.indptr)) * rarity[have.indices]
        self._weights = have
        self._common = documents > max(1.0, COMMON * len(entities))
        self._documents = documents
        best = (1 + SATURATION) / (1 + SATURATION * (1 - LENGTH))
        self._attainable = np.maximum(self._asked @ rarity * best, 1e-6)

    def best(self, width: int, advance: Callable[[int], None]) -> np.ndarray:
        """The `width` entities that share most with each distinct text, [texts,width] int32,
        PADDING where fewer share a word that is not common; ties in the order of the entities.

        Args:
            advance: told how many of the given texts were done, after each block.
        """
        out = np.full((self._asked.shape[0], width), PADDING, np.int32)
        if not width:
            return out
        rare = sparse.diags_array((~self._common).astype(np.float32))
        asked = sparse.csr_array(self._asked @ rare)
        asked.eliminate_zeros()
        postings = sparse.csr_array(self._weights.T)
        cost = np.append(0, np.cumsum(asked @ self._documents))
        given = np.bincount(self.text_of, minlength=len(out))
        start = 0
        while start < len(out):
            stop = int(np.searchsorted(cost, cost[start] + PRODUCTS, side="right")) - 1
            stop = max(stop, start + 1)
            found = sparse.csr_array(asked[start:stop] @ postings)
            found.sort_indices()
            for i in np.flatnonzero(np.diff(found.indptr)):
                own = slice(found.indptr[i], found.indptr[i + 1])
                rows = found.indices[own]
                best, _ = largest(found.data[None, own], min(width, len(rows)))
                out[start + i, : best.shape[1]] = rows[best[0]]
            advance(int(given[start:stop].sum()))
            start = stop
        return out

    def overlap(self, mention: np.ndarray, entity: np.ndarray) -> np.ndarray:
        """The feature of each pair, [pairs] float32, 0 to 1."""
        text = self.text_of[mention]
        shared = self._asked[text].multiply(self._weights[entity])
        return np.asarray(shared.sum(axis=1)).ravel() / self._attainable[text]


def _incidence(texts: Sequence[str], vocabulary: dict[str, int], grow: bool) -> sparse.csr_array:
    """[texts,words] with a 1 for each word of a text; `grow` lets new words into the vocabulary."""
    columns: list[int] = []
    starts = [0]
    for text in texts:
        found = dict.fromkeys(re.findall(r"\w+", text.casefold()))
        if grow:
            columns += [vocabulary.setdefault(word, len(vocabulary)) for word in found]
        else:
            columns += [vocabulary[word] for word in found if word in vocabulary]
        starts.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    shape = (len(texts), len(vocabulary))
    matrix = sparse.csr_array((ones, np.array(columns, np.int32), np.array(starts)), shape=shape)
    matrix.sort_indices()
    return matrix
