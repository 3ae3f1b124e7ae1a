"""JMEL, joint multimodal entity linking (Adjali et al., ECIR 2020)."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from drin_jax.models.graph import match, only
from drin_jax.types import Aux, GraphBatch


class _Joint(nnx.Module):
    """One side: each modality through a tanh layer, joined, and a linear layer to the joint space.

    A modality that is missing is zeros in the join; without pictures at all there is only text.
    """

    def __init__(
        self, text_width: int, image_width: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.text = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)
        self.image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs) if image_width else None
        self.joint = nnx.Linear(2 * width if image_width else width, width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        text: Float[Array, "*b t"],
        image: Float[Array, "*b v"],
        has_text: Bool[Array, "*b"],
        has_image: Bool[Array, "*b"],
    ) -> Float[Array, "*b d"]:
        parts = [only(jnp.tanh(self.text(text)), has_text)]
        if self.image is not None:
            parts.append(only(jnp.tanh(self.image(image)), has_image))
        return self.joint(jnp.concatenate(parts, -1))


class JMEL(nnx.Module):
    """Cosine of mention and entity in a joint space of text and picture, with weights of its own
    on either side. (The paper's own triplet loss is `loss.form = "hinge"`.)"""

    fields: ClassVar[tuple[str, ...]] = ("width",)

    def __init__(
        self, text_width: int, image_width: int, *, width: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.mention = _Joint(text_width, image_width, width, dtype=dtype, rngs=rngs)
        self.entity = _Joint(text_width, image_width, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots], 0 for an entity with neither text nor picture."""
        mention = self.mention(
            batch.mention_text,
            batch.mention_image,
            batch.mention_has_text,
            batch.mention_has_image,
        )
        entity = self.entity(
            batch.entity_text, batch.entity_image, batch.entity_has_text, batch.entity_has_image
        )
        seen = batch.entity_has_text
        if self.entity.image is not None:
            seen = seen | batch.entity_has_image
        return match(batch, mention, entity, seen)
