"""Modules with random weights, fast: drawing them one by one with JAX compiles for seconds."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def random_module(build: Callable[[], Module]) -> Module:
    """What `build` makes, with weights that keep values of order 1, drawn by NumPy with seed 0."""
    graph, state = nnx.split(nnx.eval_shape(build))
    rng = np.random.default_rng(0)

    def draw(path: Any, x: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if x.ndim == 1:
            middle = float("scale" in name or "var" in name)
            return jnp.asarray(rng.normal(middle, 0.05, x.shape), x.dtype)
        return jnp.asarray(rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape), x.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, state))
