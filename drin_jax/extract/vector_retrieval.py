"""Stage one by vectors: the entities whose vectors point most nearly where the mention's does.

`nearest` is exact on an accelerator and up to EXACT rows, and beyond those an index's affair;
`searcher` is the same for one who asks again and again, and keeps what it needs in memory. In
`by_vectors`, the exact search, every key is compared with every query, chunk by chunk on the
device. Keys are read from a memory map once, in order. With n queries, r candidates, width d, B
keys and Q queries a chunk

    device memory  4 (n d + 3 B d + 2 Q B + 4 n r) bytes     host memory  4 (2 n d + 3 B d) bytes

whatever the number of keys: about 0.24 GB and 0.18 GB at n 20,000, d 512, r 100.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from data_pipeline.kb import vector_index
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.kb.vector_index import Search
from data_pipeline.output import Progress, say
from data_pipeline.schema import PADDING, UserError

EXACT = 300_000  # rows of a knowledge base that a CPU compares one by one
QUERY_CHUNK = 512
KEY_CHUNK = 16384
RESIDENT_CHUNK = 4096  # so that little is compared in vain
ZERO_KEY = -2.0  # below every cosine: a missing text or picture is retrieved when all else is
_LANES = 128  # chunks are multiples of it, so that no key is computed by a kernel's edge case


def nearest(
    kb: KnowledgeBase, table: str, queries: Float[np.ndarray, "n d"], r: int
) -> tuple[Int[np.ndarray, "n r"], Float[np.ndarray, "n r"]]:
    """The r living entities of largest cosine with each query, as `by_vectors` gives them: all of
    them, or nearly all where an index finds them (`kb.vector_index`).

    Args:
        table: of the knowledge base's features.
    """
    search = _indexed(kb, table)
    return search(queries, r) if search else by_vectors(queries, kb.array(table), r, alive=kb.alive)


def searcher(kb: KnowledgeBase, table: str) -> Search:
    """`nearest` of one knowledge base and table, for many calls of few queries."""
    return _indexed(kb, table) or Resident(kb.array(table), kb.alive)


def _indexed(kb: KnowledgeBase, table: str) -> Search | None:
    """The search of the place that the knowledge base is kept in, or of an index; None: neither."""
    own = getattr(kb.finder(), "nearest", None)
    if own is not None:
        return functools.partial(own, table)
    if len(kb) > EXACT and jax.default_backend() == "cpu":
        if vector_index.installed():
            return vector_index.VectorIndex(kb, table).nearest
        say(
            f"{kb.path}: {len(kb):,} vectors are compared one by one; with faiss they are found in "
            "milliseconds: pip install 'drin_jax[index]'"
        )
    return None


def by_vectors(
    queries: Float[np.ndarray, "n d"],
    keys: Float[Any, "e k"],
    r: int,
    *,
    chunk: int = KEY_CHUNK,
    alive: Bool[np.ndarray, " e"] | None = None,
) -> tuple[Int[np.ndarray, "n r"], Float[np.ndarray, "n r"]]:
    """The r keys of largest cosine with each query, computed in float32.

    Equal cosines are in the order of the keys; equal keys have equal cosines. A key of zeros
    (nothing there to encode) comes after all others, with the least cosine, -1. A query of zeros
    has cosine 0 with every key, so it gets the first r that are not zero.

    Args:
        queries: vectors of the n mentions.
        keys: vectors of the e entities, in memory, memory-mapped or `Stacked`; k = d.
        r: candidates of a query; where there are fewer keys, the row ends in PADDING.
        chunk: keys compared at once, rounded up to a multiple of 128.
        alive: keys that may be found; None: all.

    Returns:
        rows [n,r] int32 and cosines [n,r] float32, falling along a row, 0 at padding.

    Raises:
        UserError: r or chunk below 1, other widths, or a vector that is not finite.
    """
    if r < 1 or chunk < 1:
        raise UserError(f"vector retrieval of r {r} in chunks of {chunk}; both must be at least 1")
    (n, d), (e, k) = queries.shape, keys.shape
    _check_queries(queries, k)
    if not n or not e:
        return np.full((n, r), PADDING, np.int32), np.zeros((n, r), np.float32)
    q = min(QUERY_CHUNK, -(-n // 8) * 8)
    chunks = -(-n // q)
    wide = min(-(-chunk // _LANES), -(-e // _LANES)) * _LANES
    padded = np.zeros((chunks * q, d), np.float32)
    padded[:n] = queries
    asked, rows, best = _begun(padded.reshape(chunks, q, d), r)
    with Progress("candidates by vectors", e, unit="entities") as progress:
        for start in range(0, e, wide):
            earlier = best
            rows, best = _merge(asked, *_chunk(keys, alive, start, wide), start, rows, best)
            earlier.block_until_ready()  # one chunk is read ahead of the device, no more
            progress.advance(min(wide, e - start))
        found, cosines = (np.asarray(a).reshape(-1, r)[:n] for a in (rows, best))
    return found, _shown(found, cosines)


class Resident:
    """`by_vectors` over keys that stay on the device, 4 bytes a number.

    A key more compiles nothing anew, until there are twice as many.
    """

    def __init__(self, keys: Float[Any, "e k"], alive: Bool[np.ndarray, " e"]):
        self._width, self._count = keys.shape[1], len(keys)
        self._wide = min(RESIDENT_CHUNK, max(_LANES, 1 << (len(keys) - 1).bit_length()))
        starts = range(0, len(keys), self._wide)
        self._chunks = [_chunk(keys, alive, start, self._wide) for start in starts]

    def __call__(self, queries: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
        """As `by_vectors`. Queries are filled up to 1, 8, or a multiple of 64."""
        _check_queries(queries, self._width)
        n = len(queries)
        q = next((few for few in (1, 8) if few >= n), -(-n // 64) * 64)
        padded = np.zeros((1, q, self._width), np.float32)
        padded[0, :n] = queries
        asked, rows, best = _begun(padded, r)
        for number, chunk in enumerate(self._chunks):
            rows, best = _merge(asked, *chunk, number * self._wide, rows, best)
        found = np.asarray(rows)[0, :n]
        return found, _shown(found, np.asarray(best)[0, :n])


@functools.partial(jax.jit, static_argnames="r")
def _begun(
    queries: Float[Any, "c q d"], r: int
) -> tuple[Float[Array, "c q d"], Int[Array, "c q r"], Float[Array, "c q r"]]:
    """Queries at length 1, and rows and cosines before anything is compared."""
    shape = (*queries.shape[:2], r)
    none = jnp.full(shape, PADDING, jnp.int32), jnp.full(shape, -jnp.inf, jnp.float32)
    return _unit(queries), *none


def _shown(found: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    cosines = np.clip(cosines, -1, 1)  # keys of zeros, and rounding
    return np.where(found == PADDING, np.float32(0), cosines)


def _chunk(
    keys: Any, alive: np.ndarray | None, start: int, wide: int
) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
    """A chunk of keys at length 1, filled up with zeros, and the most that a cosine with each can
    be."""
    part = np.asarray(keys[start : start + wide], np.float32)
    there = np.ones(len(part), bool) if alive is None else alive[start : start + wide]
    _check_finite(part, "entity", start)
    more = wide - len(part)
    part, there = np.pad(part, ((0, more), (0, 0))), np.pad(there, (0, more))
    return _prepared(jnp.asarray(part), jnp.asarray(there))


def _check_queries(queries: np.ndarray, width: int) -> None:
    if queries.shape[1] != width:
        raise UserError(
            f"vector retrieval: mentions are {queries.shape[1]} wide, entities {width}; encode "
            "both with one encoder"
        )
    _check_finite(queries, "mention", 0)


def _check_finite(vectors: np.ndarray, side: str, start: int) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = start + int(np.argmin(finite))
        raise UserError(f"vector retrieval: the vector of {side} {row} is not finite; encode anew")


def _unit(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Vectors of length 1; zeros stay. The largest entry is divided out first, as its square may
    be beyond float32."""
    largest = jnp.max(jnp.abs(x), -1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1)


@jax.jit
def _prepared(
    keys: Float[Array, "b d"], there: Bool[Array, " b"]
) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
    missing = jnp.where((keys == 0).all(-1), ZERO_KEY, jnp.inf)
    return _unit(keys), jnp.where(there, missing, -jnp.inf)


@functools.partial(jax.jit, donate_argnames=("rows",))
def _merge(
    asked: Float[Array, "c q d"],
    unit: Float[Array, "b d"],
    ceiling: Float[Array, " b"],
    start: int | Int[Array, ""],
    rows: Int[Array, "c q r"],
    best: Float[Array, "c q r"],
) -> tuple[Int[Array, "c q r"], Float[Array, "c q r"]]:
    """The best so far and a chunk of keys, as `_chunk` makes it.

    `top_k` puts the lower index first where values are equal: what was found earlier stands before
    the chunk, so ties stay in the order of the keys.
    """
    r = rows.shape[-1]

    def one(
        state: tuple[Float[Array, "q d"], Int[Array, "q r"], Float[Array, "q r"]],
    ) -> tuple[Int[Array, "q r"], Float[Array, "q r"]]:
        queries, rows, best = state
        cosine = jnp.matmul(queries, unit.T, precision=jax.lax.Precision.HIGHEST)
        values, columns = jax.lax.top_k(jnp.minimum(cosine, ceiling), min(r, len(unit)))
        columns = jnp.where(values == -jnp.inf, PADDING, start + columns)
        joined = jnp.concatenate([best, values], -1)
        values, kept = jax.lax.top_k(joined, r)
        return jnp.take_along_axis(jnp.concatenate([rows, columns], -1), kept, -1), values

    return jax.lax.map(one, (asked, rows, best))
