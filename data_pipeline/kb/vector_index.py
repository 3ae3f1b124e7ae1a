"""Vectors of a large knowledge base, searched by faiss: the nearest in milliseconds, nearly all.

    KB/index/TABLE-ROWS.faiss   a cell for every vector, and its rest, 4 bits for 4 numbers
    KB/index/TABLE.json         what it holds, and which of those counts

A query is compared with the codes of the nearest of some 2 sqrt(rows) cells, and with the best of
those exactly, by the knowledge base's own vectors. What was added since is compared exactly too,
and put in when it is much; when there is twice as much as the cells were made for, they are made
anew. A vector of zeros is never found.

The index is a cache (`kb.caches`); where the folder cannot be written, it is made in memory.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.arrays.array_file import crc32
from data_pipeline.files import load_json, write_json, write_whole
from data_pipeline.kb import caches
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.output import Progress, say
from data_pipeline.schema import PADDING, SAME_AS, UserError

# Queries [n,d] and a number of rows r -> rows [n,r] and cosines [n,r].
Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
FORM = 1
PART = 4  # numbers of a vector that share a code
PROBED = 1 / 5  # share of the cells that are looked through, or more, so that they hold
CODES = 125_000  # vectors
COMPARED = 4  # times as many as are asked for are compared exactly, and at least
LEAST = 300
TRAINED = 40  # vectors a cell that the cells are made of
ROUNDS = 8  # of k-means
TURNED, TURNS = 8000, 5  # vectors that the turn of all is made of, and its rounds
BLUR = 1e-3  # length of what is added to them, so that no two are the same
LATE = 4096  # rows that were added since, and are compared one by one
GROWN = 2.0  # times as many rows as the cells were made for: made anew
BLOCK = 64  # queries compared at once
READ = 1 << 15  # rows read at once
NOTHING = -2.0  # below every cosine: that of a vector of zeros
QUIET = 5_000  # queries; fewer are a few seconds


def installed() -> bool:
    """Whether faiss is there (the extra `index`)."""
    return importlib.util.find_spec("faiss") is not None


class VectorIndex:
    """The index of one table of an open knowledge base's features, [rows, d] float32.

    Raises:
        UserError: the knowledge base has no such table.
    """

    def __init__(self, kb: KnowledgeBase, table: str):
        self._kb, self._vectors = kb, kb.array(table)
        self._state = caches.folder(kb.path) / f"{table}.json"  # names the file that counts
        own = [s.arrays for s in kb.segments if s.rows]
        kept = [some.get(table) or some[SAME_AS[table]] for some in own]
        self._keys = [f"{one.shape}-{one.crc32}" for one in kept]
        found = self._opened()
        self._index, self._held = found if found and not self._behind(*found) else self._made()

    def _opened(self) -> tuple[Any, int] | None:
        """The index of the folder and the rows that it knows, where they are this knowledge base's,
        or the first or more than all of them."""
        import faiss

        with contextlib.suppress(Exception):  # whatever a damaged file leads to, it is made anew
            state = load_json(self._state)
            held = state["segments"]
            same = min(len(held), len(self._keys))
            known = (state["form"], held[:same]) == (FORM, self._keys[:same])
            file = self._of(int(state["rows"]))
            if known and [file.stat().st_size, crc32(file, lambda n: None)] == state["file"]:
                return faiss.read_index(str(file)), int(state["rows"])
        return None

    def _of(self, rows: int) -> Path:
        """The file of an index of so many rows."""
        return self._state.with_name(f"{self._state.stem}-{rows}.faiss")

    def _behind(self, index: Any, held: int) -> bool:
        """Whether too many rows are missing."""
        return len(self._kb) - held > LATE

    def _made(self) -> tuple[Any, int]:
        """The index with what it lacks, or another, and in its folder if that can be written."""
        try:
            with caches.in_turn(self._kb.path):
                found = self._opened()
                if found and not self._behind(*found):
                    return found
                if found is None and any(self._state.parent.glob(f"{self._state.stem}[-.]*")):
                    say(f"{self._state}: is not of this knowledge base; made anew")
                index = self._grown(*(found or (None, 0)))
                self._write(index)
        except (OSError, UserError) as error:
            say(f"{self._state}: cannot be written ({error}); the index is made in memory")
            index = self._grown(None, 0)
        return index, len(self._kb)

    def _grown(self, index: Any, held: int) -> Any:
        """An index of all rows: the one there with the rows from `held` on, or a new one."""
        rows = len(self._vectors)
        if index is None or rows > GROWN * index.ntotal:
            held = 0
            cells = max(1, 2 ** round(np.log2(rows) / 2 + 1))
            wanted = min(rows, max(cells * TRAINED, 16 * TRAINED))
            some = np.sort(np.random.default_rng(0).choice(rows, wanted, replace=False))
            parts = np.array_split(some, -(-wanted // READ))
            sample = np.concatenate([_unit(self._vectors[part]) for part in parts])
            index = _trained(sample, cells)
        with Progress("indexing vectors", rows - held, unit="rows") as bar:
            for begin in range(held, rows, READ):
                units = _unit(self._vectors[begin : begin + READ])
                there = np.flatnonzero(units.any(axis=1))
                index.add_with_ids(units[there], begin + there)
                bar.advance(len(units))
        return index

    def _write(self, index: Any) -> None:
        import faiss

        content, path = faiss.serialize_index(index).data, self._of(len(self._kb))
        write_whole(path, lambda file: file.write(content))
        file = [path.stat().st_size, crc32(path, lambda n: None)]
        state = {"form": FORM, "segments": self._keys, "rows": len(self._kb), "file": file}
        write_json(self._state, state)
        for older in path.parent.glob(f"{self._state.stem}-*.faiss"):
            if older != path:
                older.unlink(missing_ok=True)

    def nearest(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The living rows whose vectors point most nearly where each query [q,d] does, best first.

        Returns:
            rows [q,n] int32 and cosines [q,n] float32; PADDING and 0 where no more are found.

        Raises:
            UserError: other widths.
        """
        if queries.shape[1:] != self._vectors.shape[1:]:
            raise UserError(
                f"vector retrieval: mentions are {queries.shape[1]} wide, entities "
                f"{self._vectors.shape[1]}; encode both with one encoder"
            )
        rows = np.full((len(queries), n), PADDING, np.int32)
        cosines = np.zeros((len(queries), n), np.float32)
        late = np.arange(self._held, len(self._kb))
        tail = self._vectors[late]
        loud = len(queries) > QUIET
        with Progress("candidates by vectors", len(queries), unit="mentions", loud=loud) as bar:
            for begin in range(0, len(queries), BLOCK):
                asked = _unit(np.asarray(queries[begin : begin + BLOCK], np.float32))
                for i, found in enumerate(self._near(asked, n), begin):
                    query = asked[i - begin]
                    own = np.sort(found)  # in the order of the file, and of ties
                    scores = _cosines(self._vectors[own], query)
                    if len(late):
                        own = np.concatenate([own, late])
                        scores = np.concatenate([scores, _cosines(tail, query)])
                    kept = self._kb.alive[own] & (scores > NOTHING)
                    own, scores = own[kept], scores[kept]
                    best = np.argsort(-scores, kind="stable")[:n]
                    rows[i, : len(best)] = own[best]
                    cosines[i, : len(best)] = np.clip(scores[best], -1, 1)
                bar.advance(len(asked))
        return rows, cosines

    def _near(self, asked: np.ndarray, n: int) -> Iterator[np.ndarray]:
        """Of each query the rows that are best by their codes."""
        import faiss

        inner = faiss.extract_index_ivf(self._index)
        share = max(PROBED, CODES / max(inner.ntotal, 1))
        inner.nprobe = min(inner.nlist, max(1, round(share * inner.nlist)))
        _, found = self._index.search(asked, max(LEAST, COMPARED * n))
        for own in found:
            yield own[(own >= 0) & (own < len(self._kb))]  # later rows are not in this generation


def _trained(sample: np.ndarray, cells: int) -> Any:
    """An empty index whose cells and codes fit these vectors [n,d] of length 1, or zeros."""
    import faiss

    rng, width = np.random.default_rng(0), sample.shape[1]
    known = sample[sample.any(axis=1)]
    known = known if len(known) else np.eye(1, width, dtype=np.float32)
    # Of few, or of many that are the same, faiss makes codes that are NaN.
    sample = np.resize(known, (max(len(known), cells, 8 * width, 1024), width))
    sample += rng.normal(0, BLUR / np.sqrt(width), sample.shape).astype(np.float32)
    codes = f"PQ{width // PART}x4fs" if width % PART == 0 else "SQ8"
    index: Any = faiss.index_factory(width, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.by_residual = True
    index.cp.niter, index.cp.max_points_per_centroid = ROUNDS, TRAINED
    index.cp.min_points_per_centroid, index.cp.spherical = 1, True
    if width % PART == 0:  # turned so that the numbers that share a code belong together
        turn: Any = faiss.OPQMatrix(width, width // PART)
        quantizer = faiss.ProductQuantizer(width, width // PART, 4)
        turn.pq = quantizer  # which it points to, and does not own
        turn.niter, turn.niter_pq_0, turn.niter_pq = TURNS, 2 * TURNS, 2
        turn.train(sample[rng.permutation(len(sample))[:TURNED]])
        turn.pq = None
        index = faiss.IndexPreTransform(turn, index)
    index.train(sample)
    return index


def _lengths(x: np.ndarray) -> np.ndarray:
    """[n] of rows [n,d], float64: squares of float32 numbers may be beyond float32."""
    return np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))


def _unit(vectors: Any) -> np.ndarray:
    """Rows [n,d] float32 of length 1; zeros stay."""
    x = np.asarray(vectors, np.float64)
    length = _lengths(x)[:, None]
    unit: np.ndarray = (x / np.where(length > 0, length, 1)).astype(np.float32)
    return unit


def _cosines(vectors: Any, query: np.ndarray) -> np.ndarray:
    """Of rows [n,d] with a query [d] of length 1: [n] float32, NOTHING for rows of zeros."""
    x = np.asarray(vectors, np.float64)
    length = _lengths(x)
    cosines = np.where(length > 0, x @ query / np.where(length > 0, length, 1), NOTHING)
    found: np.ndarray = cosines.astype(np.float32)
    return found
