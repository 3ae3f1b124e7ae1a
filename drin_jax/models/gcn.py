"""Relation interaction: DRIN's graph layers over H, A, M and D, as the paper writes them.

`gcn_block.py` computes the same with these layers' parameters, leaving out what A has no edge for;
tests hold both equal.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

H = Float[Array, "b n d"]  # vertices, in the order mt, mv, et_1..et_r, ev_1..ev_r
A = Float[Array, "b n n"]  # symmetric edge weights, 0 where there is no edge
M = Bool[Array, "b n n"]  # whether there is an edge
D = Float[Array, "b n 1"]  # a diagonal that normalises A: `mention_row` for mentions, 1 for others


def gelu(x: Array) -> Array:
    """The exact one by erf. JAX's goes through erfc, which costs more and gains only the relative
    precision of values that are nearly zero."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}


class UpstreamLayer(nnx.Module):
    """The layer of the authors' program (docs/parity.md): everything on the right is the old value.

        H' = gelu(LN((H + D A H) W_h + b_h))
        A' = M * (sigmoid((u W_u + b_u).(v W_v + b_v) / d + A))     u the mention's end, v the other

    D is 1 / slots on the rows of mentions.
    """

    def __init__(self, width: int, *, dynamic: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dynamic = dynamic
        self.w_h = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_u = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_v = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def mention_row(self, slots: Float[Array, " b"]) -> Float[Array, " b"]:
        """D's entry for the rows of mentions with so many real candidate slots."""
        return 1 / slots

    def activate(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """gelu(LN(x)), computed in float32."""
        return gelu(self.norm(x)).astype(x.dtype)

    def __call__(self, h: H, a: A, m: M, d: D) -> tuple[H, A]:
        """H' and A'."""
        new = self.activate(self.w_h(h + d * (a @ h)))
        if not self.dynamic:
            return new, a
        products = dots(self.w_u(h), self.w_v(h)) / h.shape[-1]
        products = jnp.triu(products)  # mentions come first: the rows are u, the columns v
        return new, jnp.where(m, jax.nn.sigmoid(products + products.swapaxes(1, 2) + a), 0)


class PaperLayer(nnx.Module):
    """The layer of the paper; edges use the new vertices.

        H' = sigma(D A H W_h) + H                             (12)
        A' = M * (sigma_e(s (H' W_a)(H' W_a)^T) + A)          (13)

    The paper leaves sigma, the scale s and the normalisation D of A open; see configs/common.py.
    """

    def __init__(
        self,
        width: int,
        *,
        dynamic: bool,
        mention_rows: str,
        edge_scale: str,
        edge_activation: str,
        vertex_activation: str,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.dynamic = dynamic
        self.mean_rows = mention_rows == "mean"
        self.scale = {"rsqrt": width**-0.5, "mean": 1 / width, "none": 1.0}[edge_scale]
        self.edge_activation = ACTIVATIONS[edge_activation]
        self.vertex_activation = ACTIVATIONS[vertex_activation]
        self.w_h = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.w_a = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)

    def mention_row(self, slots: Float[Array, " b"]) -> Float[Array, " b"]:
        """D's entry for the rows of mentions with so many real candidate slots."""
        return 1 / slots if self.mean_rows else jnp.ones_like(slots)

    def __call__(self, h: H, a: A, m: M, d: D) -> tuple[H, A]:
        """H' and A'."""
        h = self.vertex_activation(self.w_h(d * (a @ h))) + h  # (12)
        if not self.dynamic:
            return h, a
        products = self.scale * dots(self.w_a(h), self.w_a(h))
        return h, jnp.where(m, self.edge_activation(products) + a, 0)  # (13)


def dots(x: H, y: H) -> A:
    """X Y^T of every graph, in float32."""
    return jnp.einsum("bid,bjd->bij", x, y, preferred_element_type=jnp.float32)
