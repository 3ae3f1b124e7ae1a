"""The BERT row of the paper's Table 2: two linear maps of frozen text features, and a cosine."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from drin_jax.models.graph import cosine
from drin_jax.types import Aux, GraphBatch


class BertMatcher(nnx.Module):
    """`cos(W_m span_mean, W_e CLS)`; text only, no graph: `image_width` is not used."""

    fields: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(
        self, text_width: int, image_width: int, *, width: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.mention_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.entity_text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b r"], Aux]:
        """Scores [b, scored slots]; `aux` holds the matched vectors `mention` and `entity`."""
        mention = self.mention_text(batch.mention_text)
        entity = self.entity_text(batch.entity_text)
        present = batch.candidate_mask & batch.entity_has_text
        scores = jnp.where(present, cosine(mention[:, None], entity), 0)[:, : batch.scored]
        return scores, {"mention": mention, "entity": entity}
