"""MEL-HI, linking with hierarchical images (Zhang et al., DASFAA 2021)."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from drin_jax.models.graph import cosine, match, only, value
from drin_jax.models.recurrent import LSTM
from drin_jax.types import Aux, GraphBatch


class MELHI(nnx.Module):
    """As re-implemented with the authors' release of DRIN (docs/systems.md).

    The mention's picture is `i = W_i v`, the candidates' are `i'_j = W_i ev_j`; all are zero unless
    `cos(CLS, i) > θ1` and some `cos(v, ev_j) > θ2`, a gate that is a constant to the gradient.
    Tokens become `[token; mean of the span; i]`, and one LSTM of width 3t reads those before the
    mention (without CLS) and, from a zero state, those behind it (with SEP); a side without tokens
    reads one zero vector. Both last states, through a linear layer, are matched with
    `W_e [entity text; i'_j]`. The mean over the regions of a picture, v, is its pooled vector.

    Args:
        recurrent_width: of the LSTM; 0: 3t (2t without pictures), as published.
        image_text_threshold, image_entity_threshold: θ1 and θ2.
    """

    fields: ClassVar[tuple[str, ...]] = (
        *("width", "recurrent_width", "image_text_threshold", "image_entity_threshold"),
    )
    needs: ClassVar[tuple[str, ...]] = ("tokens",)

    def __init__(
        self,
        text_width: int,
        image_width: int,
        *,
        width: int = 768,
        recurrent_width: int = 0,
        image_text_threshold: float = 0.0,
        image_entity_threshold: float = 0.3,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.image_text_threshold = image_text_threshold
        self.image_entity_threshold = image_entity_threshold
        t, parts = text_width, 3 if image_width else 2
        self.image = nnx.Linear(image_width, t, dtype=dtype, rngs=rngs) if image_width else None
        hidden = recurrent_width or parts * t
        self.lstm = LSTM(parts * t, hidden, dtype=dtype, rngs=rngs)
        self.mention = nnx.Linear(2 * hidden, width, dtype=dtype, rngs=rngs)
        self.entity = nnx.Linear((parts - 1) * t, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots], 0 for an entity with neither text nor a picture that is used;
        `aux` also holds `keeps_images` [b], the gate."""
        tokens, mask = batch.needed("mention_tokens"), batch.needed("mention_token_mask")
        span = batch.needed("mention_span")
        position = jnp.arange(tokens.shape[1])
        begin, end = span[:, :1], span[:, 1:]
        within = mask & (begin <= position) & (position < end)
        total = jnp.sum(jnp.where(within[..., None], tokens, 0), 1)
        constant = [total / jnp.maximum(jnp.sum(within, 1, keepdims=True), 1)]
        features, seen = [only(batch.entity_text, batch.entity_has_text)], batch.entity_has_text
        keeps = jnp.zeros(tokens.shape[0], bool)
        if self.image is not None:
            image, pictures = self.image(batch.mention_image), self.image(batch.entity_image)
            keeps = self._keeps_images(batch, tokens[:, 0], image)
            used = batch.entity_has_image & keeps[:, None]
            constant.append(only(image, keeps))
            features.append(only(pictures, used).astype(features[0].dtype))
            seen = seen | used
        left = mask & (position >= 1) & (position < begin)
        right = mask & (position >= end)
        sides = self._last_states(tokens, constant, left, right, begin, end)
        mention = self.mention(sides)
        entity = self.entity(jnp.concatenate(features, -1))
        scores, aux = match(batch, mention, entity, seen)
        return scores, aux | {"keeps_images": keeps}

    def _keeps_images(
        self, batch: GraphBatch, cls: Float[Array, "b t"], image: Float[Array, "b t"]
    ) -> Bool[Array, " b"]:
        pairs = cosine(batch.mention_image[:, None], batch.entity_image)
        there = batch.candidate_mask & batch.entity_has_image
        near = jnp.any(there & (pairs > self.image_entity_threshold), 1)
        return batch.mention_has_image & (cosine(cls, image) > self.image_text_threshold) & near

    def _last_states(
        self,
        tokens: Float[Array, "b s t"],
        constant: list[Float[Array, "b t"]],
        left: Bool[Array, "b s"],
        right: Bool[Array, "b s"],
        begin: Array,
        end: Array,
    ) -> Float[Array, "b h2"]:
        """The LSTM's last states of both sides, joined. Both are read in one pass that starts anew
        behind the mention, and what does not change from token to token is multiplied once."""
        t, dtype = tokens.shape[-1], jnp.result_type(self.lstm.inputs.dtype)
        kernel = value(self.lstm.inputs.kernel).astype(dtype)
        same = jnp.concatenate(constant, -1).astype(dtype) @ kernel[t:]
        bias = value(self.lstm.inputs.bias).astype(dtype)
        gates = tokens.astype(dtype) @ kernel[:t] + (same + bias)[:, None]
        restart = jnp.arange(tokens.shape[1]) == end
        last, states = self.lstm(gates, left | right, restart)
        before = jnp.take_along_axis(states, jnp.maximum(begin - 1, 0)[..., None], 1)[:, 0]
        empty = self.lstm.of_zero(dtype)
        sides = [(before, left), (last, right)]
        return jnp.concatenate(
            [jnp.where(jnp.any(side, 1)[:, None], state, empty) for state, side in sides], -1
        )
