"""Random batches with tokens, regions and characters, and the systems beside DRIN run on them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from drin_jax import models
from drin_jax.training.losses import margin_loss
from drin_jax.types import GraphBatch
from tests.support.random_graphs import holes, random_graphs

B, T, V, D, S, Q, C = 5, 8, 12, 8, 9, 4, 6
NEW = ("dzmned", "ghmfc", "jmel", "mel_hi")


def sequences(batch: GraphBatch, seed: int) -> GraphBatch:
    """The batch with tokens, regions and characters; junk wherever a mask hides it. The first spans
    are CLS (not found), the text's beginning, and its end."""
    rng = np.random.default_rng(seed)
    length = rng.integers(4, S + 1, B)
    begin = np.array([0, 1, length[2] - 2, 2, 2])
    end = np.array([1, 2, length[2], 3, 4])
    there = (np.arange(S) < length[:, None]) & np.asarray(batch.mention_has_text)[:, None]
    names = {}
    for side, shape in (("mention", (B,)), ("entity", batch.candidate_mask.shape)):
        counts = rng.integers(0, C + 1, shape)[..., None]
        drawn = rng.integers(1, 257, (*shape, C))
        names[f"{side}_characters"] = jnp.asarray(np.where(np.arange(C) < counts, drawn, 0))
    return changed(
        batch,
        mention_tokens=jnp.asarray(rng.standard_normal((B, S, T), np.float32)),
        mention_token_mask=jnp.asarray(there),
        mention_span=jnp.asarray(np.stack([begin, end], 1).astype(np.int32)),
        mention_regions=jnp.asarray(rng.standard_normal((B, Q, V), np.float32)),
        **{name: array.astype(jnp.int32) for name, array in names.items()},
    )


def changed(batch: GraphBatch, **arrays: Any) -> GraphBatch:
    return batch.replace(**arrays)  # type: ignore[attr-defined]


def some(seed: int = 0) -> GraphBatch:
    return sequences(holes(seed, b=B, t=T, v=V), seed)


def whole(seed: int = 0) -> GraphBatch:
    return sequences(random_graphs(seed, b=B, t=T, v=V), seed)


def build(name: str, *, v: int = V) -> nnx.Module:
    return models.build(name, T, v, width=D, dtype="float32", rngs=nnx.Rngs(0))


@functools.cache
def shared(name: str, v: int = V) -> tuple[nnx.GraphDef, nnx.State]:
    """A system and random parameters, biases too: at first they are zero, which hides what they
    should not reach. Drawn by NumPy, since every shape that JAX draws is a program to compile."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: build(name, v=v)), nnx.Param)
    rng = np.random.default_rng(0)

    def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) / np.sqrt(leaf.shape[0]))

    return graph, jax.tree.map(drawn, shapes)


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph: nnx.GraphDef, params: Any, batch: GraphBatch) -> tuple[jax.Array, Any]:
    return nnx.merge(graph, params)(batch)


def forward(graph: nnx.GraphDef, params: Any, batch: GraphBatch) -> tuple[np.ndarray, Any]:
    """Scores and `aux` of the batch with five more tokens and characters of padding, one program
    for all tests; `learner` has the batch as it is."""
    junk = jnp.cos(jnp.arange(B * 5 * T, dtype=jnp.float32)).reshape(B, 5, T)
    pad = ((0, 0), (0, 5))
    wider = {
        "mention_tokens": jnp.concatenate([batch.needed("mention_tokens"), junk], 1),
        "mention_token_mask": jnp.pad(batch.needed("mention_token_mask"), pad),
        "mention_characters": jnp.pad(batch.needed("mention_characters"), pad),
        "entity_characters": jnp.pad(batch.needed("entity_characters"), ((0, 0), *pad)),
    }
    longer = changed(batch, **wider)
    return jax.tree.map(np.asarray, _forward(graph, params, longer))


def outputs(name: str, batch: GraphBatch) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return forward(*shared(name), batch)


def scores(name: str, batch: GraphBatch) -> np.ndarray:
    return outputs(name, batch)[0]


@functools.cache
def learner(name: str) -> Any:
    """(parameters [n], batch) -> (loss, scores), gradients."""
    graph, params = shared(name)
    unravel = ravel_pytree(params)[1]

    def loss(flat: jax.Array, batch: GraphBatch) -> tuple[jax.Array, jax.Array]:
        scores, aux = nnx.merge(graph, unravel(flat))(batch)
        return margin_loss(scores, aux, batch, form="hinge", margin=0.25), scores

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def unpadded(name: str, batch: GraphBatch) -> np.ndarray:
    """The scores of `scores`, from the batch without more padding."""
    flat = ravel_pytree(shared(name)[1])[0]
    return np.asarray(learner(name)(flat, batch)[0][1])
