"""The graph of one mention: its vertices, its edges, and two layouts of the same adjacency.

A mention's text and picture (`mt`, `mv`) are joined to every candidate's text and picture (`et_j`,
`ev_j`) and nothing else is an edge, so of the n x n adjacency (n = 2 + 2r) only the
mention x entity block is ever non-zero. The *block* layout keeps that block, [b, 4, r]; the *dense*
layout is the paper's, [b, n, n] in the vertex order mt, mv, et_1..et_r, ev_1..ev_r.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from drin_jax.types import GraphBatch

RELATIONS = ("tt", "tv", "vt", "vv")


@flax.struct.dataclass
class Projected:
    """Entity vertices as the projection that makes them, `features @ kernel + bias`, not computed.

    All that the first layer asks of an entity vertex is linear in it (`weighted_sum`, `dots`,
    `times`), so the layer's own product joins the projection's: one product a candidate instead of
    two, and one in the backward pass instead of three.
    """

    features: Float[Array, "b r f"]
    kernel: Float[Array, "f d"]
    bias: Float[Array, " d"]


Entities = Float[Array, "b r d"] | Projected


@flax.struct.dataclass
class Vertices:
    """The kinds of vertex: (mt, mv) and (et, ev), or only the text ones where no enabled relation
    reaches a picture. The edge between mention kind u and entity kind v is relation 2u + v."""

    mention: tuple[Float[Array, "b d"], ...]
    entity: tuple[Float[Array, "b r d"], ...]


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
        jnp.einsum("bd,brd->br", queries[:, k], x, preferred_element_type=jnp.float32)
        for k in range(queries.shape[1])
    ]
    return jnp.stack(each, 1)


def times(x: Entities, kernel: Float[Array, "d e"]) -> Float[Array, "b r e"]:
    """Entity vertices through a linear map without bias."""
    if isinstance(x, Projected):
        return x.features @ (x.kernel @ kernel) + x.bias @ kernel
    return x @ kernel


def edge_mask(batch: GraphBatch, relations: tuple[str, ...]) -> Bool[Array, "b 4 r"]:
    """M, the edges that exist: enabled, both ends present, the slot holding a candidate."""
    mention = jnp.stack([batch.mention_has_text, batch.mention_has_image], 1)
    entity = jnp.stack([batch.entity_has_text, batch.entity_has_image], 1)
    entity = entity & batch.candidate_mask[:, None]
    mask = mention[:, :, None, None] & entity[:, None]  # [b, 2, 2, r]: mention side, entity side
    enabled = jnp.array([name in relations for name in RELATIONS])
    return mask.reshape(mask.shape[0], 4, -1) & enabled[None, :, None]


class InputProjections(nnx.Module):
    """The only trained layer on frozen features: `mt`, `mv`, `et`, `ev` by equations [2] to [5]."""

    def __init__(
        self,
        text_width: int,
        image_width: int,
        width: int,
        *,
        pictures: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.mention_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.entity_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.pictures = pictures
        if pictures:
            self.mention_image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs)
            self.entity_image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> Vertices:
        mention, entity = self.mention_text(batch.mention_text), self.entity_text(batch.entity_text)
        if not self.pictures:
            return Vertices((mention,), (entity,))
        return Vertices(
            (mention, self.mention_image(batch.mention_image)),
            (entity, self.entity_image(batch.entity_image)),
        )

    def projected(self, batch: GraphBatch) -> tuple[Projected, ...]:
        """The entity vertices of `__call__`, not computed."""
        maps = [(batch.entity_text, self.entity_text)]
        if self.pictures:
            maps.append((batch.entity_image, self.entity_image))
        return tuple(
            Projected(*(a.astype(m.dtype) for a in (x, value(m.kernel), value(m.bias))))
            for x, m in maps
        )


def value(param: nnx.Param | None) -> Array:
    """The array of a parameter that exists; flax types kernels and biases as optional."""
    assert param is not None
    return param[...]


def to_dense(
    vertices: Vertices, edges: Float[Array, "b 4 r"] | Bool[Array, "b 4 r"]
) -> tuple[Float[Array, "b n d"], Array]:
    """H and the symmetric A (or M, of a mask). Text vertices only: n = 1 + r."""
    k = len(vertices.mention)
    h = jnp.concatenate([*(x[:, None] for x in vertices.mention), *vertices.entity], 1)
    b, _, r = edges.shape
    block = edges.reshape(b, 2, 2, r)[:, :k, :k].reshape(b, k, k * r)
    a = jnp.zeros((b, k + k * r, k + k * r), edges.dtype)
    return h, a.at[:, :k, k:].set(block).at[:, k:, :k].set(block.swapaxes(1, 2))


def from_dense(
    h: Float[Array, "b n d"], a: Float[Array, "b n n"], like: Vertices
) -> tuple[Vertices, Float[Array, "b 4 r"]]:
    """The block layout of `to_dense`'s result, with the kinds of vertex that `like` has."""
    k, (b, r, _) = len(like.mention), like.entity[0].shape
    vertices = Vertices(
        tuple(h[:, u] for u in range(k)),
        tuple(h[:, k + v * r : k + (v + 1) * r] for v in range(k)),
    )
    block = a[:, :k, k:].reshape(b, k, k, r)
    return vertices, jnp.zeros((b, 2, 2, r), a.dtype).at[:, :k, :k].set(block).reshape(b, 4, r)


def cosine(x: Float[Array, "*#n d"], y: Float[Array, "*#n d"], eps: float = 1e-8) -> Array:
    """Cosine over the last axis, in float32; norms are at least `eps`, so a zero vector gives 0."""
    return jnp.sum(unit(x, eps) * unit(y, eps), -1)


def matching(mention: Float[Array, "b d"], entity: Float[Array, "b r d"]) -> Float[Array, "b r"]:
    """S [14], the cosine of a mention with each of its candidates, as one product over d."""
    entity = entity.astype(jnp.float32)
    norms = jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(entity), -1), 1e-16))
    products = jnp.einsum("bd,brd->br", unit(mention), entity, precision="highest")
    return products * norms


def unit(x: Float[Array, "*n d"], eps: float = 1e-8) -> Float[Array, "*n d"]:
    """`x` over its norm, in float32. The square root is taken of the clipped sum, so that its
    gradient is finite at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), eps**2))
