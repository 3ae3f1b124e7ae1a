"""The last step that systems share: a cosine with every candidate, and what it was taken of."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from drin_jax.models.graph import matching
from drin_jax.types import Aux, GraphBatch


def match(
    batch: GraphBatch,
    mention: Float[Array, "b d"],
    entity: Float[Array, "b r d"],
    present: Bool[Array, "b r"],
) -> tuple[Float[Array, "b scored"], Aux]:
    """Cosines [b, scored slots], and `aux` with the matched vectors `mention` and `entity`.

    Args:
        present: entities that the system knows something of. The others, and slots without a
            candidate, score 0.
    """
    scores = jnp.where(batch.candidate_mask & present, matching(mention, entity), 0)
    return scores[:, : batch.scored], {"mention": mention, "entity": entity}


def only(x: Float[Array, "*n d"], present: Bool[Array, "*n"]) -> Float[Array, "*n d"]:
    """`x` where it is present, zeros elsewhere."""
    return jnp.where(present[..., None], x, 0)
