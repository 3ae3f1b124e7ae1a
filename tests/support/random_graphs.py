"""Random graphs and small models for tests of models and losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from drin_jax.models.drin import DRIN
from drin_jax.types import GraphBatch

B, R, T, V, D = 4, 5, 7, 6, 8


def split_model(text_width: int, image_width: int) -> tuple[nnx.GraphDef, nnx.State]:
    """A narrow DRIN of the default form, as graph definition and parameters."""
    model = DRIN(text_width, image_width, width=D, rngs=nnx.Rngs(0))
    return nnx.split(model, nnx.Param)


def random_graphs(
    seed: int = 0,
    *,
    b: int = B,
    r: int = R,
    t: int = T,
    v: int = V,
    missing_text: float = 0.0,
    missing_image: float = 0.0,
    padding: float = 0.0,
) -> GraphBatch:
    """Graphs with random features and edges, also where something is missing: a mask must hide it.

    `missing_*` and `padding` are shares of the vertices and slots that are absent; the gold is any
    slot that holds a candidate, or -1.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, dtype=np.float32))

    def present(share: float, *shape: int) -> np.ndarray:
        return rng.random(shape) >= share

    candidates = present(padding, b, r)
    gold = np.array([rng.choice([*np.flatnonzero(row), -1]) for row in candidates], np.int32)
    return GraphBatch(
        mention_text=normal(b, t),
        mention_image=normal(b, v),
        entity_text=normal(b, r, t),
        entity_image=normal(b, r, v),
        edges=normal(b, 4, r),
        mention_has_text=jnp.asarray(present(missing_text, b)),
        mention_has_image=jnp.asarray(present(missing_image, b)),
        entity_has_text=jnp.asarray(present(missing_text, b, r)),
        entity_has_image=jnp.asarray(present(missing_image, b, r)),
        candidate_mask=jnp.asarray(candidates),
        gold=jnp.asarray(gold),
        mask=jnp.ones(b, bool),
    )


def holes(seed: int = 0, **sizes: int) -> GraphBatch:
    """Random graphs with missing texts, missing pictures and padding; the first lacks nothing."""
    batch = random_graphs(seed, missing_text=0.2, missing_image=0.4, padding=0.3, **sizes)
    flags = ("mention_has_text", "mention_has_image", "entity_has_text", "entity_has_image")
    whole = {name: getattr(batch, name).at[0].set(True) for name in (*flags, "candidate_mask")}
    return batch.replace(**whole)  # type: ignore[attr-defined]


def small(seed: int = 0, *, t: int = T, v: int = V, **fields: Any) -> DRIN:
    """A small DRIN whose every parameter is random, biases and LayerNorm scales too."""
    model = DRIN(t, v, width=D, rngs=nnx.Rngs(seed), **fields)
    rng = np.random.default_rng(seed)

    def shaken(leaf: jax.Array) -> jax.Array:
        return leaf + 0.3 * jnp.asarray(rng.standard_normal(leaf.shape, dtype=np.float32))

    nnx.update(model, jax.tree.map(shaken, nnx.state(model, nnx.Param)))
    return model


def value_and_grad(model: nnx.Module, batch: GraphBatch) -> dict[str, Any]:
    """Scores, `aux`, and the parameters' gradients of a fixed random sum of scores and edges."""
    graph, params = nnx.split(model, nnx.Param)

    def wave(x: jax.Array) -> jax.Array:
        return jnp.sum(x * jnp.cos(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape))

    def objective(params: nnx.State) -> tuple[jax.Array, Any]:
        scores, aux = nnx.merge(graph, params)(batch)
        return wave(scores) + wave(aux["edges"][-1]), {"scores": scores, "aux": aux}

    # Not jitted: small models of many forms share their compiled operations, not their programs.
    grads, out = jax.grad(objective, has_aux=True)(params)
    return out | {"grads": grads}


def assert_same(ours: Any, theirs: Any, tolerance: float = 2e-6) -> None:
    """Two trees of arrays agree to `tolerance`, relative to the larger of 1 and each array's
    largest entry; scores to half of it; gradients to 1e-4, as against the reference: through
    four layers of summed, not averaged rows 3.5e-5 was seen on another version of XLA."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        name = jax.tree_util.keystr(path)
        limit = tolerance * max(1.0, float(np.max(np.abs(b), initial=0.0)))
        limit *= 50 if "grads" in name else 0.5 if "scores" in name else 1
        np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=name)
