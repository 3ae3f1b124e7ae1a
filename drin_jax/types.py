"""Arrays that travel between the parts, and the glossary of their dimensions.

    b  mentions in a batch            d  width of a graph vertex
    r  candidate slots of a mention   t  width of a frozen text feature
    l  graph layers                   v  width of a frozen image feature
    n  vertices of one graph, 2 + 2r  (mention text, mention image, entity texts, entity images)
    s  tokens of a mention's text     q  regions of a picture
    c  characters of a name         k  values of evidence, those of `data_pipeline.relations`

Edges have the axis order of `data_pipeline.schema.RELATIONS`: tt, tv, vt, vv (mention side first).
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
from jaxtyping import Array, Bool, Float, Int

Aux = dict[str, Any]
Metrics = dict[str, jax.Array]

# What the fields of `models.build` may be that have a few values.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "form": ("upstream", "paper"),
    "adjacency": ("block", "dense"),
    "mention_rows": ("mean", "sum"),
    "edge_scale": ("rsqrt", "mean", "none"),
    "edge_activation": ("sigmoid", "tanh", "identity"),
    "vertex_activation": ("gelu", "relu", "tanh"),
    "dtype": ("float32", "bfloat16"),
}


@flax.struct.dataclass
class Targets:
    """What a loss holds the scores of a batch against: fields of its `GraphBatch`."""

    candidate_mask: Bool[Array, "b r"]
    gold: Int[Array, " b"]
    mask: Bool[Array, " b"]


@flax.struct.dataclass
class GraphBatch:
    """The frozen inputs of a batch of graphs.

    With the leaking protocol (`graph.gold_slot = "upstream"`) the candidate axis has one slot more,
    the gold entity, last: it takes part in the graph only. `scored` says how many slots count.
    """

    mention_text: Float[Array, "b t"]
    mention_image: Float[Array, "b v"]
    entity_text: Float[Array, "b r t"]
    entity_image: Float[Array, "b r v"]
    edges: Float[Array, "b 4 r"]
    mention_has_text: Bool[Array, " b"]
    mention_has_image: Bool[Array, " b"]
    entity_has_text: Bool[Array, "b r"]
    entity_has_image: Bool[Array, "b r"]
    candidate_mask: Bool[Array, "b r"]
    gold: Int[Array, " b"]
    mask: Bool[Array, " b"]
    gold_slot: bool = flax.struct.field(pytree_node=False, default=False)
    # What some systems need beside that (`models.needs`), and the batches of others lack.
    mention_tokens: Float[Array, "b s t"] | None = None
    mention_token_mask: Bool[Array, "b s"] | None = None
    mention_span: Int[Array, "b 2"] | None = None  # first and last+1 token of the mention
    mention_regions: Float[Array, "b q v"] | None = None
    mention_characters: Int[Array, "b c"] | None = None  # UTF-8 bytes plus 1, 0 is padding
    entity_characters: Int[Array, "b r c"] | None = None
    evidence: Float[Array, "b r k"] | None = None  # standardised; 0 where nothing is known

    @classmethod
    def from_host(cls, arrays: Mapping[str, Any], gold_slot: bool = False) -> "GraphBatch":
        """A batch of the loader's arrays (names as in `schema.batch_shapes`)."""
        return cls(**arrays, gold_slot=gold_slot)

    @property
    def scored(self) -> int:
        """Slots that are ranked and enter the loss: all but an appended gold slot."""
        return self.entity_text.shape[1] - int(self.gold_slot)

    def needed(self, name: str) -> Array:
        """One of the optional arrays; ValueError where the loader was not asked for it."""
        array = getattr(self, name)
        if array is None:
            raise ValueError(
                f"the batch holds no {name}; give its loader needs=models.needs(model.name, width)"
            )
        return array
