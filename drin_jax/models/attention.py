"""Multi-head attention of one sequence on another, of another width (Vaswani et al., 2017)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

MOST_HEADS = 8


def heads_of(*widths: int) -> int:
    """The largest number of heads, at most 8, that divides all these widths."""
    divisor = math.gcd(*widths)
    return max(n for n in range(1, MOST_HEADS + 1) if divisor % n == 0)


class Attention(nnx.Module):
    """Queries of width x attend to keys and values of width y; the result has width x.

    A query that finds no key gets zeros for what it attends to. The softmax is in float32.
    """

    def __init__(self, x: int, y: int, *, heads: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(x, x, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(y, x, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(y, x, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(x, x, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b i x"], y: Float[Array, "b j y"], keys: Bool[Array, "b j"]
    ) -> Float[Array, "b i x"]:
        """`keys` says which positions of y exist."""

        def split(a: Array) -> Array:
            return a.reshape(*a.shape[:2], self.heads, -1)

        query, key, content = split(self.query(x)), split(self.key(y)), split(self.value(y))
        logits = jnp.einsum("bihd,bjhd->bhij", query, key, preferred_element_type=jnp.float32)
        allowed = keys[:, None, None]
        logits = jnp.where(allowed, logits / math.sqrt(query.shape[-1]), -jnp.inf)
        # The maximum is finite also where no key is allowed; there every weight is zero.
        top = jnp.max(logits, -1, keepdims=True, initial=jnp.finfo(jnp.float32).min)
        weights = jnp.where(allowed, jnp.exp(logits - jax.lax.stop_gradient(top)), 0)
        weights = weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-30)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights.astype(content.dtype), content)
        return self.out(mixed.reshape(*x.shape[:2], -1))
