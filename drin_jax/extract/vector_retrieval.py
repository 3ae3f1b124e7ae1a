"""Stage one by vectors: the entities whose vectors point most nearly where the mention's does.

`nearest` is exact on an accelerator and up to EXACT rows, and beyond those an index's affair. In
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
from data_pipeline.output import Progress, say
from data_pipeline.schema import PADDING, UserError

EXACT = 300_000  # rows of a knowledge base that a CPU compares one by one
QUERY_CHUNK = 512
KEY_CHUNK = 16384
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
    own = getattr(kb.finder(), "nearest", None)
    if own is not None:
        found: tuple[np.ndarray, np.ndarray] = own(table, queries, r)
        return found
    if len(kb) > EXACT and jax.default_backend() == "cpu":
        if vector_index.installed():
            return vector_index.VectorIndex(kb, table).nearest(queries, r)
        say(
            f"{kb.path}: {len(kb):,} vectors are compared one by one; with faiss they are found in "
            "milliseconds: pip install 'drin_jax[index]'"
        )
    return by_vectors(queries, kb.array(table), r, alive=kb.alive)


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
    if d != k:
        raise UserError(
            f"vector retrieval: mentions are {d} wide, entities {k}; encode both with one encoder"
        )
    _check_finite(queries, "mention", 0)
    if not n or not e:
        return np.full((n, r), PADDING, np.int32), np.zeros((n, r), np.float32)
    q = min(QUERY_CHUNK, -(-n // 8) * 8)
    chunks = -(-n // q)
    wide = min(-(-chunk // _LANES), -(-e // _LANES)) * _LANES
    padded = np.zeros((chunks * q, d), np.float32)
    padded[:n] = queries
    asked = _unit(jnp.asarray(padded).reshape(chunks, q, d))
    rows = jnp.full((chunks, q, r), PADDING, jnp.int32)
    best = jnp.full((chunks, q, r), -jnp.inf, jnp.float32)
    with Progress("candidates by vectors", e, unit="entities") as progress:
        for start in range(0, e, wide):
            part = np.asarray(keys[start : start + wide], np.float32)
            there = np.ones(len(part), bool) if alive is None else alive[start : start + wide]
            _check_finite(part, "entity", start)
            present = len(part)
            if present < wide:
                part = np.concatenate([part, np.zeros((wide - present, d), np.float32)])
            there = np.pad(there, (0, wide - present))
            earlier = best
            rows, best = _merge(asked, jnp.asarray(part), start, jnp.asarray(there), rows, best)
            earlier.block_until_ready()  # one chunk is read ahead of the device, no more
            progress.advance(present)
        found, cosines = (np.asarray(a).reshape(-1, r)[:n] for a in (rows, best))
    cosines = np.clip(cosines, -1, 1)  # keys of zeros, and rounding
    return found, np.where(found == PADDING, np.float32(0), cosines)


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


@functools.partial(jax.jit, donate_argnames=("rows",))
def _merge(
    asked: Float[Array, "c q d"],
    keys: Float[Array, "b d"],
    start: int | Int[Array, ""],
    there: Bool[Array, " b"],
    rows: Int[Array, "c q r"],
    best: Float[Array, "c q r"],
) -> tuple[Int[Array, "c q r"], Float[Array, "c q r"]]:
    """The best so far and a chunk of keys, of which those are real that are `there`.

    `top_k` puts the lower index first where values are equal: what was found earlier stands before
    the chunk, so ties stay in the order of the keys.
    """
    r = rows.shape[-1]
    missing = jnp.where((keys == 0).all(-1), ZERO_KEY, jnp.inf)
    ceiling = jnp.where(there, missing, -jnp.inf)
    unit = _unit(keys)

    def one(
        state: tuple[Float[Array, "q d"], Int[Array, "q r"], Float[Array, "q r"]],
    ) -> tuple[Int[Array, "q r"], Float[Array, "q r"]]:
        queries, rows, best = state
        cosine = jnp.matmul(queries, unit.T, precision=jax.lax.Precision.HIGHEST)
        values, columns = jax.lax.top_k(jnp.minimum(cosine, ceiling), min(r, len(keys)))
        columns = jnp.where(values == -jnp.inf, PADDING, start + columns)
        joined = jnp.concatenate([best, values], -1)
        values, kept = jax.lax.top_k(joined, r)
        return jnp.take_along_axis(jnp.concatenate([rows, columns], -1), kept, -1), values

    return jax.lax.map(one, (asked, rows, best))
