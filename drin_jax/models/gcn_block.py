"""The layers of `gcn.py`, computed on the mention x entity block of A alone: the same numbers.

Beside leaving out zeros, no layer multiplies a candidate's vertex where a mention's will do:

    (u W_u + b_u).(v W_v + b_v) = q.v + c     with q = (u W_u + b_u) W_v^T, c = (u W_u + b_u).b_v
    (u W_a).(v W_a) = (u W_a W_a^T).v
    (D A H W_h)_et_j = tt_j (mt W_h) + vt_j (mv W_h)
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float

from drin_jax.models.gcn import PaperLayer, UpstreamLayer
from drin_jax.models.graph import EdgeMask, Edges, InputProjections, Vertices, value
from drin_jax.types import GraphBatch

CACHE_BYTES = 1_500_000  # of one array; a core's second-level cache is a megabyte or two


@flax.struct.dataclass
class Projected:
    """Entity vertices as the projection that makes them, `features @ kernel + bias`, not computed.

    All that a layer of the upstream form asks of an entity vertex is linear in it (`weighted_sum`,
    `dots`, `times`), so the layer's own product joins the projection's: one product a candidate
    instead of two, and one in the backward pass instead of three.
    """

    features: Float[Array, "b r f"]
    kernel: Float[Array, "f d"]
    bias: Float[Array, " d"]


Entities = Float[Array, "b r d"] | Projected


def joining_pays(batch: GraphBatch) -> bool:
    """Joining costs 3 d^2 (t + v) multiply-adds a step and saves 6 d^2 a candidate; twice the even
    number of candidates, since sums over the wider features cost something too. Not for sizes that
    are symbols, as in an export."""
    b, r, t = batch.entity_text.shape
    return not is_symbolic_dim(b * r) and b * r >= t + batch.entity_image.shape[-1]


def first_entities(
    layer: UpstreamLayer | PaperLayer, inputs: InputProjections, batch: GraphBatch, x: Vertices
) -> Sequence[Entities]:
    """The entity vertices that the first layer reads: `x`'s, or their projections, which a layer of
    the upstream form takes, where that saves work."""
    if isinstance(layer, PaperLayer) or not joining_pays(batch):
        return x.entities
    maps = [(batch.entity_text, inputs.entity_text)]
    if inputs.pictures:
        maps.append((batch.entity_image, inputs.entity_image))
    return [Projected(features.astype(m.dtype), *_parameters(m, m.dtype)) for features, m in maps]


def advance(
    layer: UpstreamLayer | PaperLayer,
    x: Vertices,
    entities: Sequence[Entities],
    edges: Edges,
    mask: EdgeMask,
    slots: Float[Array, " b"],
) -> tuple[Vertices, Edges]:
    """Vertices and edges after a layer; `entities` are the entity vertices before it."""
    received = to_mentions(entities, edges, layer.mention_row(slots))
    if isinstance(layer, PaperLayer):
        sent = to_entities([layer.w_h(m) for m in x.mentions], edges)
        received = [layer.w_h(s) for s in received]
        new = Vertices.of(
            [layer.vertex_activation(s) + m for s, m in zip(received, x.mentions, strict=True)],
            [layer.vertex_activation(s) + e for s, e in zip(sent, x.entities, strict=True)],
        )
        u = layer.w_a(jnp.stack(new.mentions, 1))
        queries = u @ value(layer.w_a.kernel).astype(u.dtype).T
        updated = layer.edge_activation(layer.scale * all_dots(queries, new.entities)) + edges
    else:
        new = Vertices.of(
            [layer.activate(layer.w_h(m + s)) for m, s in zip(x.mentions, received, strict=True)],
            [in_cache(layer.activate, p) for p in entity_products(layer, x, entities, edges)],
        )
        u = layer.w_u(jnp.stack(x.mentions, 1))
        kernel, bias = _parameters(layer.w_v, u.dtype)
        constant = jnp.sum(u * bias, -1, dtype=jnp.float32)[:, :, None, None]
        products = all_dots(u @ kernel.T, entities) + constant
        updated = jax.nn.sigmoid(products / kernel.shape[0] + edges)
    return new, jnp.where(mask, updated, 0) if layer.dynamic else edges


def entity_products(
    layer: UpstreamLayer, x: Vertices, entities: Sequence[Entities], edges: Edges
) -> list[Float[Array, "b r d"]]:
    """(et_j + tt_j mt + vt_j mv) W_h + b_h, and the same of ev_j."""
    if not isinstance(entities[0], Projected):
        received = to_entities(x.mentions, edges)
        return [layer.w_h(e + s) for e, s in zip(x.entities, received, strict=True)]
    kernel, bias = _parameters(layer.w_h, x.mt.dtype)
    received = to_entities([m @ kernel for m in x.mentions], edges)
    return [times(e, kernel) + s + bias for e, s in zip(entities, received, strict=True)]


def _parameters(linear: nnx.Linear, dtype: Any) -> tuple[Array, Array]:
    return value(linear.kernel).astype(dtype), value(linear.bias).astype(dtype)


def in_cache(f: Callable[[Array], Array], x: Float[Array, "b r d"]) -> Float[Array, "b r d"]:
    """`f(x)`, of each mention by itself, in parts that a CPU's cache holds.

    A layer norm, an activation and their gradients are a dozen passes over an array. A CPU takes
    each through memory once the array is larger than a core's cache; an accelerator's compiler
    makes one kernel of them, and gets the whole. Only `x` is kept for the backward pass.
    """
    f = jax.checkpoint(f)
    if jax.default_backend() != "cpu" or any(is_symbolic_dim(size) for size in x.shape):
        return f(x)
    b = x.shape[0]
    least = max(-(-x.size * x.dtype.itemsize // CACHE_BYTES), 1)
    parts = next((n for n in range(least, b) if b % n == 0), b)  # of whole mentions
    if parts == 1:
        return f(x)
    return jax.lax.map(f, x.reshape(parts, -1, *x.shape[1:])).reshape(x.shape)


def to_mentions(
    entities: Sequence[Entities], edges: Edges, row: Float[Array, " b"]
) -> list[Float[Array, "b d"]]:
    """What candidates send to each kind of mention vertex: sums along the edges, times `row`."""
    weights = edges * row[:, None, None, None]
    sums = sum(weighted_sum(weights[:, :, v], e) for v, e in enumerate(entities))
    return list(jnp.unstack(sums, axis=1))


def to_entities(sent: list[Float[Array, "b d"]], edges: Edges) -> list[Float[Array, "b r d"]]:
    """What the mention vertices send to each kind of entity vertex."""
    stacked = jnp.stack(sent, 1)
    weights = edges.astype(stacked.dtype)
    return [jnp.einsum("bur,bud->brd", weights[:, :, v], stacked) for v in range(len(sent))]


def all_dots(queries: Float[Array, "b k d"], entities: Sequence[Entities]) -> Edges:
    """Dot products, in float32, of a vector of each kind of mention vertex with every entity's."""
    return jnp.stack([dots(queries, e) for e in entities], 2)


def weighted_sum(weights: Float[Array, "b k r"], x: Entities) -> Float[Array, "b k d"]:
    """Sums of a graph's entity vertices, weighted in k ways."""
    if isinstance(x, Projected):
        total = jnp.sum(weights, -1, keepdims=True).astype(x.bias.dtype)
        return weighted_sum(weights, x.features) @ x.kernel + total * x.bias
    return jnp.einsum("bkr,brd->bkd", weights.astype(x.dtype), x)


def dots(queries: Float[Array, "b k d"], x: Entities) -> Float[Array, "b k r"]:
    """Dot products, in float32, of k vectors with a graph's entity vertices."""
    if isinstance(x, Projected):
        constant = jnp.einsum("bkd,d->bk", queries, x.bias, preferred_element_type=jnp.float32)
        return dots(queries @ x.kernel.T, x.features) + constant[..., None]
    # One query at a time: XLA's CPU backend has no fast product of a few rows with a long matrix.
    each = [
        jnp.einsum("bd,brd->br", query, x, preferred_element_type=jnp.float32)
        for query in jnp.unstack(queries, axis=1)
    ]
    return jnp.stack(each, 1)


def times(x: Entities, kernel: Float[Array, "d e"]) -> Float[Array, "b r e"]:
    """Entity vertices through a linear map without bias."""
    if isinstance(x, Projected):
        return x.features @ (x.kernel @ kernel) + x.bias @ kernel
    return x @ kernel
