"""Texts as sparse rows of hashed words or trigrams, which need no vocabulary.

A text of any knowledge base, of a new mention or of a new entity becomes the same row, so that
training, serving and adding share one code and one table of weights.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import sparse

from data_pipeline.kb.folded_names import fold

COLUMNS = 1 << 18
Cut = Callable[[str], Iterable[str]]  # a text into its terms


@dataclasses.dataclass(slots=True)
class Rows:
    """A sparse table [n,width] by its rows. For one mention, making a `csr_array` of it takes
    longer than what is done with it.

    Attributes:
        data: float32, row by row.
        indices: the column of each of them, rising in a row.
        indptr: [n+1] where each row begins, and the last ends.
    """

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    width: int = COLUMNS

    @classmethod
    def of(cls, table: sparse.csr_array) -> "Rows":
        """Those of scipy's."""
        table.sort_indices()
        return cls(table.data, table.indices, table.indptr, table.shape[1])

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def sizes(self) -> np.ndarray:
        """How many columns each row has, [n]."""
        sizes: np.ndarray = self.indptr[1:] - self.indptr[:-1]
        return sizes

    @property
    def scipy(self) -> sparse.csr_array:
        """The same, for products of whole tables."""
        held = self.data, self.indices, self.indptr
        return sparse.csr_array(held, shape=(len(self), self.width))

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`ranges` of what these rows hold, in `indices` and `data`."""
        begin = self.indptr[rows]
        return ranges(begin, self.indptr[rows + 1] - begin)


def ranges(begin: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of n ranges, one range after the other: of which range [k] each is, and the place
    [k]."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    first = begin - np.cumsum(sizes) + sizes
    return which, first[which] + np.arange(len(which))


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


def _columns(text: str, cut: Cut) -> np.ndarray:
    """Where the terms of a text count, each once, in order."""
    return np.array(sorted({column(term) for term in cut(text)}), np.int32)


columns = functools.lru_cache(maxsize=1 << 17)(_columns)  # candidates come again and again


def table_of(held: Sequence[np.ndarray]) -> Rows:
    """[n,COLUMNS] float32 with a 1 in these columns of each row."""
    starts = np.zeros(len(held) + 1, np.int64)
    np.cumsum([len(own) for own in held], out=starts[1:])
    indices = np.concatenate([np.zeros(0, np.int32), *held])
    return Rows(np.ones(len(indices), np.float32), indices, starts)


def incidence(texts: Iterable[str], cut: Cut) -> Rows:
    """[n,COLUMNS] float32 with a 1 for each term that a text has."""
    return table_of([columns(text, cut) for text in texts])


def rarity(texts: Iterable[str], cut: Cut) -> np.ndarray:
    """What each term weighs, [COLUMNS] float32: log((1 + n) / (1 + texts that have it)) + 1."""
    have, n = np.zeros(COLUMNS, np.int64), 0
    for text in texts:
        have[_columns(text, cut)] += 1
        n += 1
    return (np.log((1 + n) / (1 + have)) + 1).astype(np.float32)


def weighed(table: Rows, weights: np.ndarray, norm: int = 2) -> Rows:
    """Rows of an `incidence` times the weights of their terms, at length 1, or with `norm` 1 at sum
    1; rows without a term stay."""
    data = weights[table.indices]
    row = np.repeat(np.arange(len(table)), table.sizes)
    sums = np.bincount(row, data**norm, minlength=len(table)) ** (1 / norm)
    data = (data / np.maximum(sums, 1e-9)[row]).astype(np.float32)
    return Rows(data, table.indices, table.indptr)


def rows_of(texts: Iterable[str], cut: Cut, weights: np.ndarray) -> Rows:
    """Rows at length 1 of texts cut into terms, which weigh so much."""
    return weighed(incidence(texts, cut), weights)


def mixed(table: Rows, rows: np.ndarray, weight: np.ndarray) -> Rows:
    """[m,width] the sums of k rows of a table, each times its weight.

    Args:
        rows: [m,k] of the table.
        weight: [m,k].
    """
    m, k = rows.shape
    which, term = table.places(rows.ravel())
    sums, place = np.unique(which // k * table.width + table.indices[term], return_inverse=True)
    data = np.bincount(place, weight.ravel()[which] * table.data[term]).astype(np.float32)
    starts = np.searchsorted(sums, np.arange(m + 1) * table.width)
    return Rows(data, sums % table.width, starts, table.width)


def products(left: Rows, at: np.ndarray, right: Rows, others: np.ndarray) -> np.ndarray:
    """Dot products [n] float32 of rows `at` of one table with rows `others` of the other."""
    if not len(left.data):
        return np.zeros(len(at), np.float32)
    held = np.repeat(np.arange(len(left)), left.sizes) * np.int64(COLUMNS)
    held += left.indices  # row and column in one, rising
    pair, term = right.places(others)
    asked = at[pair] * np.int64(COLUMNS) + right.indices[term]
    place = np.minimum(np.searchsorted(held, asked), len(held) - 1)
    shared = np.where(held[place] == asked, left.data[place] * right.data[term], 0)
    return np.bincount(pair, shared, minlength=len(others)).astype(np.float32)
