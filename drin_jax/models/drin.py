"""DRIN, the dynamic relation interactive network (Xing et al., ACM MM 2023)."""

from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from data_pipeline.schema import RELATIONS
from drin_jax.models import gcn_block
from drin_jax.models.gcn import PaperLayer, UpstreamLayer
from drin_jax.models.graph import (
    Edges,
    InputProjections,
    edge_mask,
    from_block,
    from_dense,
    match,
    to_block,
    to_dense,
)
from drin_jax.types import Aux, GraphBatch


class DRIN(nnx.Module):
    """Scores every candidate of a mention by `cos(mt^L, et_j^L)` [14] after L graph layers.

    Args:
        form: "upstream", what the authors' program computes, or "paper", the published equations.
        relations: the enabled ones of tt, tv, vt, vv.
        dynamic: whether layers update the edges.
        adjacency: "block" or "dense"; the same numbers, the first with far less work.
        text_width: of the frozen features.
        image_width: likewise; 0 for a store without pictures, whose graphs then have text vertices
            only.
        pictures: whether there are image vertices; by default where a relation reaches one.
    """

    fields: ClassVar[tuple[str, ...]] = (
        *("width", "layers", "form", "relations", "dynamic", "adjacency", "mention_rows"),
        *("edge_scale", "edge_activation", "vertex_activation"),
    )

    def __init__(
        self,
        text_width: int,
        image_width: int,
        *,
        width: int = 768,
        layers: int = 2,
        form: str = "upstream",
        relations: tuple[str, ...] = RELATIONS,
        dynamic: bool = True,
        adjacency: str = "block",
        mention_rows: str = "mean",
        edge_scale: str = "rsqrt",
        edge_activation: str = "sigmoid",
        vertex_activation: str = "gelu",
        pictures: bool | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.relations = tuple(name for name in RELATIONS if name in relations)
        self.adjacency = adjacency
        if image_width == 0:
            self.relations = tuple(name for name in self.relations if name == "tt")
        if pictures is None:
            pictures = any(name != "tt" for name in self.relations)
        self.inputs = InputProjections(
            text_width, image_width, width, pictures=pictures, dtype=dtype, rngs=rngs
        )

        def layer() -> UpstreamLayer | PaperLayer:
            if form == "upstream":
                return UpstreamLayer(width, dynamic=dynamic, dtype=dtype, rngs=rngs)
            return PaperLayer(
                width,
                dynamic=dynamic,
                mention_rows=mention_rows,
                edge_scale=edge_scale,
                edge_activation=edge_activation,
                vertex_activation=vertex_activation,
                dtype=dtype,
                rngs=rngs,
            )

        self.layers = nnx.List([layer() for _ in range(layers)])

    def __call__(
        self, batch: GraphBatch, added: Sequence[Edges] | None = None
    ) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots] and what they came from.

        Args:
            added: to the weights of the edges before each layer; None, as in the paper: nothing.

        `aux` holds `edges` [l+1, b, 4, r], the initial edge weights and those after every layer;
        `vertices`, a list of l+1 `Vertices`; `mention` [b, d] and `entity` [b, r, d], the matched
        vectors. A slot without a candidate or whose entity has no text scores 0 and is masked by
        the losses and metrics. Nothing of `aux` costs time in a compiled step that does not use it.
        """
        x = self.inputs(batch)
        k = len(x.mentions)
        mask = to_block(edge_mask(batch, self.relations), k)
        edges = jnp.where(mask, to_block(batch.edges, k), 0)
        slots = jnp.maximum(jnp.sum(batch.candidate_mask, 1), 1).astype(jnp.float32)
        entities = gcn_block.first_entities(self.layers[0], self.inputs, batch, x)
        vertices, weights = [x], [edges]
        for i, layer in enumerate(self.layers):
            if added is not None:
                edges = edges + jnp.where(mask, added[i], 0)
            if self.adjacency == "dense":
                h, a, m, d = to_dense(x, edges, mask, layer.mention_row(slots))
                x, edges = from_dense(*layer(h, a, m, d), k)
            else:
                x, edges = gcn_block.advance(layer, x, entities, edges, mask, slots)
                entities = x.entities
            vertices.append(x)
            weights.append(edges)
        scores, aux = match(batch, x.mt, x.et, batch.entity_has_text)
        stacked = jnp.stack([from_block(edges) for edges in weights])
        return scores, aux | {"edges": stacked, "vertices": vertices}
