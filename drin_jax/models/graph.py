"""The graph of one mention: its vertices, its edges, two forms of the adjacency, and the match.

A mention's text and picture (`mt`, `mv`) are joined to every candidate's text and picture (`et_j`,
`ev_j`) and nothing else is an edge, so of the n x n adjacency (n = 2 + 2r) only the
mention x entity block is ever non-zero. *Block* adjacency is that block, [b, k, k, r]; *dense*
adjacency is the paper's, [b, n, n] in the vertex order mt, mv, et_1..et_r, ev_1..ev_r.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from data_pipeline.schema import EVIDENCE, OF_OWN_PICTURE, RELATIONS
from drin_jax.types import Aux, GraphBatch

# Between k kinds of mention vertex and k kinds of entity vertex: [:, u, v] is relation 2u + v.
Edges = Float[Array, "b k k r"]
EdgeMask = Bool[Array, "b k k r"]

_OF_OWN_PICTURE = np.array([name in OF_OWN_PICTURE for own in EVIDENCE.values() for name in own])


@flax.struct.dataclass
class Vertices:
    """Text and picture of the mentions and of their candidates; no pictures (k is 1, not 2) where
    no enabled relation reaches one."""

    mt: Float[Array, "b d"]
    et: Float[Array, "b r d"]
    mv: Float[Array, "b d"] | None = None
    ev: Float[Array, "b r d"] | None = None

    @classmethod
    def of(cls, mentions: Sequence[Array], entities: Sequence[Array]) -> "Vertices":
        """From [mt, mv] and [et, ev], or [mt] and [et]."""
        return cls(mentions[0], entities[0], *mentions[1:], *entities[1:])

    @property
    def mentions(self) -> list[Float[Array, "b d"]]:
        """The k kinds of mention vertex, text first."""
        return [self.mt] if self.mv is None else [self.mt, self.mv]

    @property
    def entities(self) -> list[Float[Array, "b r d"]]:
        """The k kinds of entity vertex, text first."""
        return [self.et] if self.ev is None else [self.et, self.ev]


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
        """The vertices of a batch of graphs."""
        mt, et = self.mention_text(batch.mention_text), self.entity_text(batch.entity_text)
        if not self.pictures:
            return Vertices(mt, et)
        mv, ev = self.mention_image(batch.mention_image), self.entity_image(batch.entity_image)
        return Vertices(mt, et, mv, ev)


def edge_mask(batch: GraphBatch, relations: tuple[str, ...]) -> Bool[Array, "b 4 r"]:
    """M, the edges that exist: enabled, both ends present, the slot holding a candidate."""
    mention = jnp.stack([batch.mention_has_text, batch.mention_has_image], 1)
    entity = jnp.stack([batch.entity_has_text, batch.entity_has_image], 1)
    entity = entity & batch.candidate_mask[:, None]
    mask = mention[:, :, None, None] & entity[:, None]  # [b, 2, 2, r]: mention side, entity side
    enabled = jnp.array([name in relations for name in RELATIONS])
    return mask.reshape(mask.shape[0], 4, -1) & enabled[None, :, None]


def blind(batch: GraphBatch, seen: Bool[Array, " b"]) -> GraphBatch:
    """The batch as if mentions that are not `seen` had no picture."""
    evidence = batch.evidence
    if evidence is not None:
        evidence = jnp.where(seen[:, None, None] | ~_OF_OWN_PICTURE, evidence, 0)
    return batch.replace(  # type: ignore[attr-defined,no-any-return]
        mention_has_image=batch.mention_has_image & seen, evidence=evidence
    )


def to_block(relations: Array, k: int) -> Array:
    """[b, 4, r] as [b, k, k, r]: the relations between kinds of vertex that there are."""
    b, _, r = relations.shape
    return relations.reshape(b, 2, 2, r)[:, :k, :k]


def from_block(edges: Array) -> Array:
    """[b, k, k, r] as [b, 4, r]: 0 for relations between kinds of vertex that there are not."""
    b, k, _, r = edges.shape
    return jnp.pad(edges, ((0, 0), (0, 2 - k), (0, 2 - k), (0, 0))).reshape(b, 4, r)


def to_dense(
    x: Vertices, edges: Edges, mask: EdgeMask, mention_row: Float[Array, " b"]
) -> tuple[Float[Array, "b n d"], Float[Array, "b n n"], Bool[Array, "b n n"], Array]:
    """H, A, M and D (`gcn.py`) of a graph; D has `mention_row` on the rows of mentions."""
    h = jnp.concatenate([*(m[:, None] for m in x.mentions), *x.entities], 1)
    n, k = h.shape[1], len(x.mentions)

    def symmetric(block: Array) -> Array:
        block = block.reshape(block.shape[0], k, -1)
        a = jnp.zeros((block.shape[0], n, n), block.dtype)
        return a.at[:, :k, k:].set(block).at[:, k:, :k].set(block.swapaxes(1, 2))

    d = jnp.where(jnp.arange(n) < k, mention_row[:, None], 1.0)[..., None]
    return h, symmetric(edges), symmetric(mask), d


def from_dense(
    h: Float[Array, "b n d"], a: Float[Array, "b n n"], k: int
) -> tuple[Vertices, Edges]:
    """The vertices and the block of H and A; k kinds of vertex on either side."""
    mentions, entities = jnp.split(h, [k], 1)
    block = a[:, :k, k:].reshape(a.shape[0], k, k, -1)
    return Vertices.of(jnp.unstack(mentions, axis=1), jnp.split(entities, k, 1)), block


def value(param: nnx.Param | None) -> Array:
    """The array of a parameter that exists; flax types kernels and biases as optional."""
    assert param is not None
    return param[...]


def cosine(x: Float[Array, "*#n d"], y: Float[Array, "*#n d"], eps: float = 1e-8) -> Array:
    """Cosine over the last axis, in float32; norms are at least `eps`, so a zero vector gives 0."""
    return jnp.sum(unit(x, eps) * unit(y, eps), -1)


def unit(x: Float[Array, "*n d"], eps: float = 1e-8) -> Float[Array, "*n d"]:
    """`x` over its norm, in float32. The square root is taken of the clipped sum, so that its
    gradient is finite at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), eps**2))


def match(
    batch: GraphBatch,
    mention: Float[Array, "b d"],
    entity: Float[Array, "b r d"],
    present: Bool[Array, "b r"],
) -> tuple[Float[Array, "b scored"], Aux]:
    """S [14], the last step that systems share: cosines [b, scored slots] of a mention with each of
    its candidates, as one product over d, and `aux` with the matched vectors `mention`, `entity`.

    Args:
        present: entities that the system knows something of. The others, and slots without a
            candidate, score 0.
    """
    y = entity.astype(jnp.float32)
    norms = jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(y), -1), 1e-16))
    products = jnp.einsum("bd,brd->br", unit(mention), y, precision="highest")
    scores = jnp.where(batch.candidate_mask & present, products * norms, 0)
    return scores[:, : batch.scored], {"mention": mention, "entity": entity}


def only(x: Float[Array, "*n d"], present: Bool[Array, "*n"]) -> Float[Array, "*n d"]:
    """`x` where it is present, zeros elsewhere."""
    return jnp.where(present[..., None], x, 0)
