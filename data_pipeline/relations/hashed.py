"""Texts as sparse rows of hashed words or trigrams, which need no vocabulary.

A text of any knowledge base, of a new mention or of a new entity becomes the same row, so that
training, serving and adding share one code and one table of weights.
"""

import functools
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import sparse

from data_pipeline.kb.text_index import fold

COLUMNS = 1 << 18


def words(text: str) -> list[str]:
    """The folded words of a text, in order."""
    return fold(text).split()


def trigrams(text: str) -> list[str]:
    """Runs of three characters of the folded text, which is padded with a space."""
    form = fold(text)
    padded = f" {form} "
    return [padded[i : i + 3] for i in range(len(padded) - 2)] if form else []


@functools.lru_cache(maxsize=1 << 20)
def column(term: str) -> int:
    """Where a term counts."""
    return zlib.crc32(term.encode(errors="replace")) % COLUMNS


def incidence(texts: Iterable[Iterable[str]]) -> sparse.csr_array:
    """[n, COLUMNS] float32 with a 1 for each term that a text has."""
    columns: list[int] = []
    starts = [0]
    for terms in texts:
        columns += sorted({column(term) for term in terms})
        starts.append(len(columns))
    ones = np.ones(len(columns), np.float32)
    held = (ones, np.array(columns, np.int32), np.array(starts, np.int64))
    return sparse.csr_array(held, shape=(len(starts) - 1, COLUMNS))


def rarity(table: sparse.csr_array) -> np.ndarray:
    """What each term weighs, [COLUMNS] float32: log((1 + n) / (1 + texts that have it)) + 1."""
    have = np.bincount(table.indices, minlength=COLUMNS)
    return (np.log((1 + table.shape[0]) / (1 + have)) + 1).astype(np.float32)


def weighted(table: sparse.csr_array, weights: np.ndarray) -> sparse.csr_array:
    """Rows of an `incidence` times the weights of their terms."""
    held = (weights[table.indices], table.indices, table.indptr)
    return sparse.csr_array(held, shape=table.shape)


def unit(table: sparse.csr_array) -> sparse.csr_array:
    """The same rows at length 1; rows without a term stay."""
    norms = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    per = np.repeat(1 / np.maximum(norms, 1e-9), np.diff(table.indptr)).astype(np.float32)
    return sparse.csr_array((table.data * per, table.indices, table.indptr), shape=table.shape)


def rows_of(
    texts: Sequence[str], cut: Callable[[str], Iterable[str]], weights: np.ndarray | None = None
) -> tuple[sparse.csr_array, np.ndarray]:
    """Rows at length 1 of texts cut into terms, and the weights they were made with: those given,
    or the texts' own `rarity`."""
    table = incidence(map(cut, texts))
    weights = rarity(table) if weights is None else weights
    return unit(weighted(table, weights)), weights


def products(
    left: sparse.csr_array, at: np.ndarray, right: sparse.csr_array, others: np.ndarray
) -> np.ndarray:
    """Dot products [n] float32 of rows `at` of one table with rows `others` of the other."""
    both = left[at].multiply(right[others])
    return np.asarray(both.sum(axis=1)).ravel().astype(np.float32)
