"""DRIN, the dynamic relation interactive network (Xing et al., ACM MM 2023)."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from drin_jax.models.gcn import PaperLayer, UpstreamLayer
from drin_jax.models.graph import (
    RELATIONS,
    InputProjections,
    edge_mask,
    from_dense,
    matching,
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
        text_width, image_width: of the frozen features; 0 for a store without pictures, whose
            graphs then have text vertices only.
        pictures: whether there are image vertices; by default where a relation reaches one.
        join_projections: whether the entities' input projections join the first layer's product
            (block adjacency, upstream form); by default where that saves work.
    """

    needs: ClassVar[tuple[str, ...]] = ()

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
        join_projections: bool | None = None,
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
        self.join_projections = join_projections if form == "upstream" else False

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b r"], Aux]:
        """Scores [b, scored slots] and what they came from.

        `aux` holds `edges` [l+1, b, 4, r], the initial edge weights and those after every layer;
        `vertices`, a list of l+1 `Vertices`; `mention` [b, d] and `entity` [b, r, d], the matched
        vectors. A slot without a candidate or whose entity has no text scores 0 and is masked by
        the losses and metrics. Nothing of `aux` costs time in a compiled step that does not use it.
        """
        mask = edge_mask(batch, self.relations)
        slots = jnp.maximum(jnp.sum(batch.candidate_mask, 1), 1).astype(jnp.float32)
        x = self.inputs(batch)
        edges = jnp.where(mask, batch.edges, 0)
        vertices, weights = [x], [edges]
        if self.adjacency == "dense":
            h, a = to_dense(x, edges)
            _, m = to_dense(x, mask)
            for layer in self.layers:
                h, a = layer.dense(h, a, m, slots, len(x.mention))
                new, edges = from_dense(h, a, x)
                vertices.append(new)
                weights.append(edges)
        else:
            joined = {"projected": self.inputs.projected(batch)} if self._joins(batch) else {}
            for i, layer in enumerate(self.layers):
                options = joined if i == 0 else {}
                new, edges = layer.block(vertices[-1], edges, mask, slots, **options)
                vertices.append(new)
                weights.append(edges)
        last = vertices[-1]
        mention, entity = last.mention[0], last.entity[0]
        scores = matching(mention, entity)
        present = batch.candidate_mask & batch.entity_has_text
        scores = jnp.where(present, scores, 0)[:, : batch.scored]
        aux: Aux = {
            "edges": jnp.stack(weights),
            "vertices": vertices,
            "mention": mention,
            "entity": entity,
        }
        return scores, aux

    def _joins(self, batch: GraphBatch) -> bool:
        """Joining costs 3 d^2 (t + v) multiply-adds a step and saves 6 d^2 a candidate; twice the
        even number of candidates, since sums over the wider features cost something too."""
        if self.join_projections is not None:
            return self.join_projections
        b, r, t = batch.entity_text.shape
        return b * r >= t + batch.entity_image.shape[-1]


def raw_text_edge(batch: GraphBatch) -> Float[Array, "b r"]:
    """R_tt itself as a score: what an untrained ranker makes of the same features."""
    return batch.edges[:, 0, : batch.scored]
