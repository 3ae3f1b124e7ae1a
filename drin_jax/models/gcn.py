"""Relation interaction: one graph layer in the authors' form and one in the paper's.

A layer updates vertices and edges. It has a `block` path, which touches only the mention x entity
block, and a `dense` path over H and A as the paper writes it; a test holds them equal.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from drin_jax.models.blocks import in_blocks
from drin_jax.models.graph import (
    Entities,
    Projected,
    Vertices,
    dots,
    times,
    value,
    weighted_sum,
)


def _gelu(x: Array) -> Array:
    # The exact one by erf; JAX's goes through erfc, which costs more and gains only the relative
    # precision of values that are nearly zero.
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}

# From here on W_h of what the mention sends costs less than a pass over what candidates receive.
MANY_CANDIDATES = 64

Edges = Float[Array, "b 4 r"]
EdgeMask = Bool[Array, "b 4 r"]


def _to_mentions(
    entity: Sequence[Entities], edges: Edges, scale: Float[Array, " b"]
) -> list[Float[Array, "b d"]]:
    """What the candidates send to each mention vertex: edge-weighted sums times `scale`."""
    weights = _by_kind(edges * scale[:, None, None], len(entity))
    sums = [weighted_sum(weights[:, :, v], e) for v, e in enumerate(entity)]
    return list(jnp.unstack(functools.reduce(jnp.add, sums), axis=1))


def _to_entities(
    mention: Sequence[Float[Array, "b d"]], edges: Edges
) -> list[Float[Array, "b r d"]]:
    """What the mention vertices send to every candidate's vertices."""
    weights = _by_kind(edges.astype(mention[0].dtype), len(mention))
    stacked = jnp.stack(mention, 1)
    return [jnp.einsum("bur,bud->brd", weights[:, :, v], stacked) for v in range(len(mention))]


def _by_kind(edges: Edges, k: int) -> Float[Array, "b {k} {k} r"]:
    """The edges between the k kinds of mention vertex and the k kinds of entity vertex."""
    b, _, r = edges.shape
    return edges.reshape(b, 2, 2, r)[:, :k, :k]


def _block_dots(queries: Float[Array, "b k d"], entity: Sequence[Entities]) -> Edges:
    """Dot products of every query with every entity vertex of its graph, in the order of edges."""
    block = jnp.stack([dots(queries, e) for e in entity], 2)
    b, k, _, r = block.shape
    return jnp.pad(block, ((0, 0), (0, 2 - k), (0, 2 - k), (0, 0))).reshape(b, 4, r)


def _norm_gelu(
    x: Float[Array, "*n d"], scale: Float[Array, " d"], bias: Float[Array, " d"], eps: float
) -> Float[Array, "*n d"]:
    """gelu(LN(x)), computed in float32."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + eps)
    return _gelu(centred * inverse * scale + bias).astype(x.dtype)


class UpstreamLayer(nnx.Module):
    """The layer of the authors' program (docs/parity.md): everything on the right is the old value.

    H' = gelu(LN(W_h (H + D A H)))               D: 1/slots on mention rows, 1 on entity rows
    e_uv' = sigmoid(mean_d((W_u u + b_u) * (W_v v + b_v)) + e_uv)
    """

    def __init__(self, width: int, *, dynamic: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        self.dynamic = dynamic
        self.w_h = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_u = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.w_v = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def _vertex(self, x: Array) -> Array:
        return self._activate(self.w_h(x))

    def _activate(self, x: Array) -> Array:
        scale, bias = value(self.norm.scale), value(self.norm.bias)
        return _norm_gelu(x, scale, bias, self.norm.epsilon)

    def _entities(
        self, entity: Sequence[Entities], mention: Sequence[Array], edges: Edges
    ) -> list[Float[Array, "b r d"]]:
        formed = [e for e in entity if not isinstance(e, Projected)]
        r = edges.shape[-1]
        if formed and (is_symbolic_dim(r) or r < MANY_CANDIDATES):
            received = _to_entities(mention, edges)
            return [
                in_blocks(self._activate, self.w_h(e + m))
                for e, m in zip(formed, received, strict=True)
            ]
        # W_h (et_j + tt_j mt + vt_j mv) = W_h et_j + tt_j W_h mt + vt_j W_h mv
        dtype = mention[0].dtype
        kernel, bias = value(self.w_h.kernel).astype(dtype), value(self.w_h.bias).astype(dtype)
        sent = jnp.stack([m @ kernel for m in mention], 1)
        weights = _by_kind(edges.astype(dtype), len(mention))

        def receive(own: Array, weights: Array, sent: Array) -> Array:
            return self._activate(own + jnp.einsum("bur,bud->brd", weights, sent) + bias)

        return [
            in_blocks(receive, times(e, kernel), weights[:, :, v], sent)
            for v, e in enumerate(entity)
        ]

    def block(
        self,
        x: Vertices,
        edges: Edges,
        mask: EdgeMask,
        slots: Float[Array, " b"],
        projected: tuple[Projected, ...] | None = None,
    ) -> tuple[Vertices, Edges]:
        """Vertices and edges after this layer; `slots` is the number of real candidate slots.

        With `projected`, the entity vertices are read from there and those of `x` are not used.
        """
        entity = x.entity if projected is None else projected
        received = _to_mentions(entity, edges, 1 / slots)
        new = Vertices(
            tuple(self._vertex(m + e) for m, e in zip(x.mention, received, strict=True)),
            tuple(self._entities(entity, x.mention, edges)),
        )
        return new, self._block_edges(x.mention, entity, edges, mask) if self.dynamic else edges

    def _block_edges(
        self, mention: Sequence[Array], entity: Sequence[Entities], edges: Edges, mask: EdgeMask
    ) -> Edges:
        # (W_u u + b_u).(W_v v + b_v) = q.v + (W_u u + b_u).b_v with q = W_v^T (W_u u + b_u):
        # two d x d products a mention vertex instead of one a candidate vertex.
        kernel, bias = value(self.w_v.kernel), value(self.w_v.bias)
        u = self.w_u(jnp.stack(mention, 1))
        products = _block_dots(u @ kernel.astype(u.dtype).T, entity)
        constant = jnp.sum(u * bias.astype(u.dtype), -1, dtype=jnp.float32)  # [b, k]
        constant = jnp.repeat(constant, 4 // len(mention), 1)[..., None]
        return jnp.where(mask, jax.nn.sigmoid((products + constant) / kernel.shape[0] + edges), 0)

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
        dtype: DTypeLike,
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
        mention = _to_mentions(x.entity, edges, self._row_weight(slots))
        entity = _to_entities([self.w_h(m) for m in x.mention], edges)
        new = Vertices(
            tuple(self._update(self.w_h(a), b) for a, b in zip(mention, x.mention, strict=True)),
            tuple(self._update(a, b) for a, b in zip(entity, x.entity, strict=True)),
        )
        return new, self._block_edges(new, edges, mask) if self.dynamic else edges

    def _block_edges(self, x: Vertices, edges: Edges, mask: EdgeMask) -> Edges:
        # (u W_a).(v W_a) = (u W_a W_a^T).v: again no product a candidate.
        projected = self.w_a(jnp.stack(x.mention, 1))
        queries = projected @ value(self.w_a.kernel).astype(projected.dtype).T
        products = self.scale * _block_dots(queries, x.entity)
        return jnp.where(mask, ACTIVATIONS[self.edge_activation](products) + edges, 0)

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
