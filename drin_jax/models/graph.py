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
from jaxtyping import Array, Bool, Float

from drin_jax.types import GraphBatch

RELATIONS = ("tt", "tv", "vt", "vv")
TT, TV, VT, VV = range(4)


@flax.struct.dataclass
class Vertices:
    """The four kinds of vertex; image ones are None where no enabled relation reaches a picture."""

    mt: Float[Array, "b d"]
    mv: Float[Array, "b d"] | None
    et: Float[Array, "b r d"]
    ev: Float[Array, "b r d"] | None


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
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.mention_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.entity_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.pictures = pictures
        if pictures:
            self.mention_image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs)
            self.entity_image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> Vertices:
        return Vertices(
            mt=self.mention_text(batch.mention_text),
            mv=self.mention_image(batch.mention_image) if self.pictures else None,
            et=self.entity_text(batch.entity_text),
            ev=self.entity_image(batch.entity_image) if self.pictures else None,
        )


def to_dense(
    vertices: Vertices, edges: Float[Array, "b 4 r"]
) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"]]:
    """H and the symmetric A. Without image vertices both hold text vertices only (n = 1 + r)."""
    if vertices.mv is None or vertices.ev is None:
        h = jnp.concatenate([vertices.mt[:, None], vertices.et], 1)
        block = edges[:, None, TT]  # [b, 1, r]
    else:
        h = jnp.concatenate(
            [vertices.mt[:, None], vertices.mv[:, None], vertices.et, vertices.ev], 1
        )
        rows = edges.reshape(edges.shape[0], 2, -1)  # [b, 2, 2r]: rows mt, mv; columns et.., ev..
        block = rows
    k, columns = block.shape[1:]
    a = jnp.zeros((block.shape[0], k + columns, k + columns), block.dtype)
    a = a.at[:, :k, k:].set(block).at[:, k:, :k].set(block.swapaxes(1, 2))
    return h, a


def from_dense(
    h: Float[Array, "b n d"], a: Float[Array, "b n n"], like: Vertices
) -> tuple[Vertices, Float[Array, "b 4 r"]]:
    """The block layout of `to_dense`'s result, with the kinds of vertex that `like` has."""
    b, r, _ = like.et.shape
    if like.mv is None:
        vertices = Vertices(mt=h[:, 0], mv=None, et=h[:, 1:], ev=None)
        edges = jnp.zeros((b, 4, r), a.dtype).at[:, TT].set(a[:, 0, 1:])
    else:
        vertices = Vertices(mt=h[:, 0], mv=h[:, 1], et=h[:, 2 : 2 + r], ev=h[:, 2 + r :])
        edges = a[:, :2, 2:].reshape(b, 4, r)
    return vertices, edges


def cosine(x: Float[Array, "*n d"], y: Float[Array, "*n d"], eps: float = 1e-8) -> Array:
    """Cosine over the last axis, in float32; norms are at least `eps`, so a zero vector gives 0."""
    return jnp.sum(unit(x, eps) * unit(y, eps), -1)


def unit(x: Float[Array, "*n d"], eps: float = 1e-8) -> Float[Array, "*n d"]:
    """`x` over its norm, in float32. The square root is taken of the clipped sum, so that its
    gradient is finite at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), eps**2))
