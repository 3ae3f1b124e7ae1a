"""Frozen encoders alone, ranked over the whole knowledge base: where the gold stands among all of
its entities by the cosine of a mention's vector with theirs. Exact, chunk by chunk on the device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from data_pipeline.output import Progress
from data_pipeline.store.reader import Store
from drin_jax.evaluation.ranks import RankCounts
from drin_jax.models.graph import unit

# System -> tables of the mention and of the entity.
RAW = {
    "text vectors": ("mention_text_edge", "entity_text_edge"),
    "CLIP, text to text": ("mention_clip_text", "entity_clip_text"),
    "CLIP, picture to text": ("mention_clip_image", "entity_clip_text"),
    "CLIP, picture to picture": ("mention_clip_image", "entity_clip_image"),
}
QUERIES, KEYS = 512, 16384  # compared at once
QUIET = 10**11  # multiplications; fewer are a few seconds


def raw_encoders(store: Store, split: str) -> dict[str, RankCounts]:
    """The counts of every encoder that the store has vectors of, over all entities that were in the
    knowledge base when the store was made.

    A missing text or picture is a vector of zeros, whose cosine is 0. Of mentions without a gold in
    the knowledge base the counts mean nothing.
    """
    rows = np.asarray(store.array(f"{split}_mention"))
    gold = np.asarray(store.array(f"{split}_gold_entity"))
    out = {}
    for name, (mine, theirs) in RAW.items():
        queries, keys = store.array(mine), store.array(theirs)
        if queries.shape[1] and len(rows):
            out[name] = _counts(name, np.asarray(queries[rows]), keys, gold, store.kb.alive)
    return out


def _counts(
    name: str, queries: np.ndarray, keys: np.ndarray, gold: np.ndarray, alive: np.ndarray
) -> RankCounts:
    n, (e, d) = len(queries), keys.shape
    chunks = -(-n // QUERIES)
    padded = np.zeros((chunks * QUERIES, d), np.float32)
    padded[:n] = queries
    asked = unit(jnp.asarray(padded).reshape(chunks, QUERIES, d))
    flat = np.full(chunks * QUERIES, -1, np.int32)
    flat[:n] = gold
    wanted = flat.reshape(chunks, QUERIES)
    wide = min(KEYS, -(-e // 128) * 128)
    own = jnp.full(wanted.shape, -jnp.inf, jnp.float32)
    counts = jnp.zeros((3, *wanted.shape), jnp.int32)
    title, loud = f"ranking all entities by {name}", n * e * d > QUIET
    with Progress(title, 2 * e, unit="entities", loud=loud) as bar:
        for final in (False, True):  # first the gold's own score, then who is above it
            for start in range(0, e, wide):
                part = np.asarray(keys[start : start + wide], np.float32)
                missing = wide - len(part)
                part = np.pad(part, ((0, missing), (0, 0)))
                there = np.pad(alive[start : start + wide], (0, missing))
                inside = jnp.asarray(wanted - start)
                if final:
                    counts += _compared(asked, jnp.asarray(part), jnp.asarray(there), inside, own)
                else:
                    own = jnp.maximum(own, _own(asked, jnp.asarray(part), inside))
                bar.advance(wide - missing)
        higher, tied, before = np.asarray(counts).reshape(3, -1)[:, :n]
    return RankCounts(higher, tied, before, np.where(gold >= 0, 0, -1))


def _cosines(queries: Float[Array, "q d"], keys: Float[Array, "b d"]) -> Float[Array, "q b"]:
    return jnp.matmul(queries, unit(keys).T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _own(
    asked: Float[Array, "c q d"], keys: Float[Array, "b d"], gold: Int[Array, "c q"]
) -> Float[Array, "c q"]:
    """The gold's cosine where it is one of these keys, else -inf."""

    def one(state: tuple[Array, Array]) -> Array:
        queries, at = state
        inside = (at >= 0) & (at < len(keys))
        cosine = _cosines(queries, keys)
        own = jnp.take_along_axis(cosine, jnp.where(inside, at, 0)[:, None], 1)[:, 0]
        return jnp.where(inside, own, -jnp.inf)

    return jax.lax.map(one, (asked, gold))


@jax.jit
def _compared(
    asked: Float[Array, "c q d"],
    keys: Float[Array, "b d"],
    there: Bool[Array, " b"],
    gold: Int[Array, "c q"],
    own: Float[Array, "c q"],
) -> Int[Array, "3 c q"]:
    """How many of these keys are above the gold, level with it, and level and before it."""

    def one(state: tuple[Array, Array, Array]) -> Array:
        queries, at, score = state
        slot = jnp.arange(len(keys))
        others = there & (slot != at[:, None])
        cosine = _cosines(queries, keys)
        tied = others & (cosine == score[:, None])
        found = others & (cosine > score[:, None]), tied, tied & (slot < at[:, None])
        return jnp.stack([jnp.sum(x, 1) for x in found])

    return jax.lax.map(one, (asked, gold, own)).transpose(1, 0, 2)
