"""Relation interaction: one graph layer in the authors' form and one in the paper's.

A layer updates vertices and edges. It has a `block` path, which touches only the mention x entity
block, and a `dense` path over H and A as the paper writes it; a test holds them equal.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from drin_jax.models.graph import TT, TV, VT, VV, Vertices

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}

Edges = Float[Array, "b 4 r"]
EdgeMask = Bool[Array, "b 4 r"]


def _weighted_sum(weights: Float[Array, "b r"], entity: Float[Array, "b r d"]) -> Array:
    return jnp.einsum("br,brd->bd", weights.astype(entity.dtype), entity)


def _dots(mention: Float[Array, "b d"], entity: Float[Array, "b r d"]) -> Float[Array, "b r"]:
    return jnp.sum(mention[:, None] * entity, -1, dtype=jnp.float32)


def _aggregate_mentions(
    x: Vertices, edges: Edges, scale: Float[Array, " b"]
) -> tuple[Array, Array | None]:
    """What the candidates send to `mt` and `mv`: edge-weighted sums times `scale`."""
    weights = edges * scale[:, None, None]
    mt = _weighted_sum(weights[:, TT], x.et)
    if x.mv is None:
        return mt, None
    mt += _weighted_sum(weights[:, TV], x.ev)
    return mt, _weighted_sum(weights[:, VT], x.et) + _weighted_sum(weights[:, VV], x.ev)


def _aggregate_entities(
    mt: Float[Array, "b d"], mv: Float[Array, "b d"] | None, edges: Edges
) -> tuple[Array, Array | None]:
    """What `mt` and `mv` send to every `et_j` and `ev_j`."""
    weights = edges.astype(mt.dtype)[..., None]
    et = weights[:, TT] * mt[:, None]
    if mv is None:
        return et, None
    et += weights[:, VT] * mv[:, None]
    return et, weights[:, TV] * mt[:, None] + weights[:, VV] * mv[:, None]


class UpstreamLayer(nnx.Module):
    """The layer of the authors' program (docs/parity.md): everything on the right is the old value.

    H' = gelu(LN(W_h (H + D A H)))               D: 1/slots on mention rows, 1 on entity rows
    e_uv' = sigmoid(mean_d((W_u u + b_u) * (W_v v + b_v)) + e_uv)
    """

    def __init__(self, width: int, *, dynamic: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dynamic = dynamic
        self.w_h = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_u = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_v = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def _vertex(self, x: Array) -> Array:
        normed = self.norm(self.w_h(x).astype(jnp.float32))
        return jax.nn.gelu(normed, approximate=False).astype(x.dtype)

    def block(
        self, x: Vertices, edges: Edges, mask: EdgeMask, slots: Float[Array, " b"]
    ) -> tuple[Vertices, Edges]:
        """Vertices and edges after this layer; `slots` is the number of real candidate slots."""
        to_mt, to_mv = _aggregate_mentions(x, edges, 1 / slots)
        to_et, to_ev = _aggregate_entities(x.mt, x.mv, edges)
        new = Vertices(
            mt=self._vertex(x.mt + to_mt),
            mv=None if to_mv is None else self._vertex(x.mv + to_mv),
            et=self._vertex(x.et + to_et),
            ev=None if to_ev is None else self._vertex(x.ev + to_ev),
        )
        return new, self._block_edges(x, edges, mask) if self.dynamic else edges

    def _block_edges(self, x: Vertices, edges: Edges, mask: EdgeMask) -> Edges:
        # (W_u u + b_u).(W_v v + b_v) = q.v + (W_u u + b_u).b_v with q = W_v^T (W_u u + b_u):
        # two d x d products a mention vertex instead of one a candidate vertex.
        kernel, bias = self.w_v.kernel[...], self.w_v.bias[...]

        def interaction(mention: Array, entity: Array) -> Array:
            u = self.w_u(mention)
            q = u @ kernel.astype(u.dtype).T
            constant = jnp.sum(u * bias.astype(u.dtype), -1, dtype=jnp.float32)
            return (_dots(q, entity) + constant[:, None]) / mention.shape[-1]

        tt = interaction(x.mt, x.et)
        if x.mv is None:
            dots = jnp.stack([tt, *[jnp.zeros_like(tt)] * 3], 1)
        else:
            dots = jnp.stack(
                [tt, interaction(x.mt, x.ev), interaction(x.mv, x.et), interaction(x.mv, x.ev)], 1
            )
        return jnp.where(mask, jax.nn.sigmoid(dots + edges), 0)

    def dense(
        self, h: Float[Array, "b n d"], a: Array, m: Array, slots: Float[Array, " b"], mentions: int
    ) -> tuple[Array, Array]:
        """The same over H, A and the mask M; the first `mentions` rows of each are mentions."""
        new = self._vertex(h + _row_scale(h.shape[1], mentions, 1 / slots) * (a @ h))
        if not self.dynamic:
            return new, a
        u, v = self.w_u(h), self.w_v(h)
        dots = jnp.einsum("bid,bjd->bij", u, v, preferred_element_type=jnp.float32) / h.shape[-1]
        is_mention = jnp.arange(h.shape[1]) < mentions
        dots = jnp.where(is_mention[:, None], dots, dots.swapaxes(1, 2))
        return new, jnp.where(m, jax.nn.sigmoid(dots + a), 0)


class PaperLayer(nnx.Module):
    """The layer of the paper, equations [12] and [13]; edges use the new vertices.

        H' = sigma(D A H W_h) + H
        A' = M * (sigma_e(s (H' W_a)(H' W_a)^T) + A)

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
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dynamic = dynamic
        self.mean_rows = mention_rows == "mean"
        self.scale = {"rsqrt": width**-0.5, "mean": 1 / width, "none": 1.0}[edge_scale]
        self.edge_activation = edge_activation
        self.vertex_activation = vertex_activation
        self.w_h = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.w_a = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)

    def _row_weight(self, slots: Array) -> Array:
        return 1 / slots if self.mean_rows else jnp.ones_like(slots)

    def _update(self, mixed: Array, old: Array) -> Array:
        return ACTIVATIONS[self.vertex_activation](mixed) + old

    def block(
        self, x: Vertices, edges: Edges, mask: EdgeMask, slots: Float[Array, " b"]
    ) -> tuple[Vertices, Edges]:
        """Vertices and edges after this layer.

        An entity row of A H W_h is a combination of the two rows of mentions, so W_h is applied to
        four vectors a mention and to none a candidate.
        """
        to_mt, to_mv = _aggregate_mentions(x, edges, self._row_weight(slots))
        to_et, to_ev = _aggregate_entities(
            self.w_h(x.mt), None if x.mv is None else self.w_h(x.mv), edges
        )
        new = Vertices(
            mt=self._update(self.w_h(to_mt), x.mt),
            mv=None if to_mv is None else self._update(self.w_h(to_mv), x.mv),
            et=self._update(to_et, x.et),
            ev=None if to_ev is None else self._update(to_ev, x.ev),
        )
        return new, self._block_edges(new, edges, mask) if self.dynamic else edges

    def _block_edges(self, x: Vertices, edges: Edges, mask: EdgeMask) -> Edges:
        kernel = self.w_a.kernel[...]

        def interaction(mention: Array, entity: Array) -> Array:
            # (u W_a).(v W_a) = (u W_a W_a^T).v: again no product a candidate.
            projected = self.w_a(mention)
            return self.scale * _dots(projected @ kernel.astype(projected.dtype).T, entity)

        tt = interaction(x.mt, x.et)
        if x.mv is None:
            dots = jnp.stack([tt, *[jnp.zeros_like(tt)] * 3], 1)
        else:
            dots = jnp.stack(
                [tt, interaction(x.mt, x.ev), interaction(x.mv, x.et), interaction(x.mv, x.ev)], 1
            )
        return jnp.where(mask, ACTIVATIONS[self.edge_activation](dots) + edges, 0)

    def dense(
        self, h: Float[Array, "b n d"], a: Array, m: Array, slots: Float[Array, " b"], mentions: int
    ) -> tuple[Array, Array]:
        """The same over H, A and M, as equations [12] and [13] are written."""
        rows = _row_scale(h.shape[1], mentions, self._row_weight(slots))
        new = self._update(self.w_h(rows * (a @ h)), h)
        if not self.dynamic:
            return new, a
        projected = self.w_a(new)
        dots = jnp.einsum("bid,bjd->bij", projected, projected, preferred_element_type=jnp.float32)
        return new, jnp.where(m, ACTIVATIONS[self.edge_activation](self.scale * dots) + a, 0)


def _row_scale(n: int, mentions: int, weight: Float[Array, " b"]) -> Float[Array, "b n 1"]:
    """The diagonal of D: `weight` on the mention rows, 1 on the others."""
    return jnp.where(jnp.arange(n)[None] < mentions, weight[:, None], 1.0)[..., None]
