"""GHMFC, gated hierarchical multimodal fusion (Wang et al., SIGIR 2022)."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from data_pipeline.schema import UserError
from drin_jax.models.graph import match
from drin_jax.types import Aux, GraphBatch

MOST_HEADS = 8


def heads_of(*widths: int) -> int:
    """The largest number of heads, at most 8, that divides all these widths."""
    divisor = math.gcd(*widths)
    return max(n for n in range(1, MOST_HEADS + 1) if divisor % n == 0)


class Attention(nnx.Module):
    """Multi-head attention of one sequence on another, of another width (Vaswani et al., 2017):
    queries of width x attend to keys and values of width y; the result has width x.

    A query that finds no key gets zeros for what it attends to. The softmax is in float32.
    """

    def __init__(self, x: int, y: int, *, heads: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.query = nnx.Linear(x, x, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(y, x, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(y, x, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(x, x, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b i x"], y: Float[Array, "b j y"], keys: Bool[Array, "b j"]
    ) -> Float[Array, "b i x"]:
        """`keys` says which positions of y exist."""

        def split(a: Array) -> Array:
            return a.reshape(*a.shape[:2], self.heads, -1)

        query, key, content = split(self.query(x)), split(self.key(y)), split(self.value(y))
        logits = jnp.einsum("bihd,bjhd->bhij", query, key, preferred_element_type=jnp.float32)
        allowed = keys[:, None, None]
        logits = jnp.where(allowed, logits / math.sqrt(query.shape[-1]), -jnp.inf)
        # The maximum is finite also where no key is allowed; there every weight is zero.
        top = jnp.max(logits, -1, keepdims=True, initial=jnp.finfo(jnp.float32).min)
        weights = jnp.where(allowed, jnp.exp(logits - jax.lax.stop_gradient(top)), 0)
        weights = weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-30)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights.astype(content.dtype), content)
        return self.out(mixed.reshape(*x.shape[:2], -1))


class CrossAttention(nnx.Module):
    """Two stages: x attends to y, and the result to x again; FFN is one linear layer.

    u = LN(MHA(q=x, k=v=y));  u = LN(u + FFN(u))
    w = LN(MHA(q=u, k=v=x));  w = LN(w + FFN(w))
    """

    def __init__(self, x: int, y: int, *, heads: int, dtype: DTypeLike, rngs: nnx.Rngs):
        self.across = Attention(x, y, heads=heads, dtype=dtype, rngs=rngs)
        self.across_ffn = nnx.Linear(x, x, dtype=dtype, rngs=rngs)
        self.back = Attention(x, x, heads=heads, dtype=dtype, rngs=rngs)
        self.back_ffn = nnx.Linear(x, x, dtype=dtype, rngs=rngs)
        self.norms = nnx.List(
            [nnx.LayerNorm(x, epsilon=1e-5, dtype=dtype, rngs=rngs) for _ in range(4)]
        )

    def __call__(
        self,
        x: Float[Array, "b i x"],
        y: Float[Array, "b j y"],
        has_x: Bool[Array, "b i"],
        has_y: Bool[Array, "b j"],
    ) -> Float[Array, "b i x"]:
        """`has_x` and `has_y` say which positions exist; others are no attention keys."""
        u = self.norms[0](self.across(x, y, has_y))
        u = self.norms[1](u + self.across_ffn(u))
        w = self.norms[2](self.back(u, x, has_x))
        return self.norms[3](w + self.back_ffn(w))


class GHMFC(nnx.Module):
    """As re-implemented with the authors' release of DRIN (docs/systems.md).

        a = gelu(W_t max_tokens A(tokens, regions));  c = gelu(W_v max_regions A(regions, tokens))
        p = softmax(W_g [a; c]);  cos(p_0 a + p_1 c, W_e entity text)

    A mention without a picture (without text) has p = (1, 0) ((0, 1)). There are 8 attention heads,
    or the largest number below that divides both widths of the features.

    Args:
        max_over_padding: whether max_tokens also runs over padding, as in that program.

    Raises:
        UserError: `image_width` is 0; there is nothing to fuse.
    """

    fields: ClassVar[tuple[str, ...]] = ("width",)
    needs: ClassVar[tuple[str, ...]] = ("tokens", "regions")

    def __init__(
        self,
        text_width: int,
        image_width: int,
        *,
        width: int = 768,
        max_over_padding: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if image_width == 0:
            raise UserError(
                "model.name is 'ghmfc', which fuses text with pictures, but the store has no "
                "pictures; set encoders.image, or choose bert, jmel, dzmned, mel_hi or drin"
            )
        t, v, heads = text_width, image_width, heads_of(text_width, image_width)
        self.max_over_padding = max_over_padding
        self.text_attention = CrossAttention(t, v, heads=heads, dtype=dtype, rngs=rngs)
        self.image_attention = CrossAttention(v, t, heads=heads, dtype=dtype, rngs=rngs)
        self.text = nnx.Linear(t, width, dtype=dtype, rngs=rngs)
        self.image = nnx.Linear(v, width, dtype=dtype, rngs=rngs)
        self.gate = nnx.Linear(2 * width, 2, dtype=dtype, rngs=rngs)
        self.entity = nnx.Linear(t, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots], 0 for an entity without text; `aux` also holds `gate` [b, 2],
        the weights of text and picture."""
        tokens, regions = batch.needed("mention_tokens"), batch.needed("mention_regions")
        has_token = batch.needed("mention_token_mask")
        has_region = jnp.broadcast_to(batch.mention_has_image[:, None], regions.shape[:2])
        pooled = jnp.ones_like(has_token) if self.max_over_padding else has_token
        text = _max(self.text_attention(tokens, regions, has_token, has_region), pooled)
        image = _max(self.image_attention(regions, tokens, has_region, has_token), has_region)
        a = jax.nn.gelu(self.text(text), approximate=False)
        c = jax.nn.gelu(self.image(image), approximate=False)
        gate = self.gate(jnp.concatenate([a, c], -1)).astype(jnp.float32)
        there = jnp.stack([jnp.any(has_token, 1), batch.mention_has_image], 1)
        gate = jax.nn.softmax(jnp.where(there, gate, jnp.finfo(jnp.float32).min))
        p = gate.astype(a.dtype)
        mention = p[:, :1] * a + p[:, 1:] * c
        entity = self.entity(batch.entity_text)
        scores, aux = match(batch, mention, entity, batch.entity_has_text)
        return scores, aux | {"gate": gate}


def _max(x: Float[Array, "b i d"], there: Bool[Array, "b i"]) -> Float[Array, "b d"]:
    """Largest entries over the positions that are there, 0 where none is."""
    largest = jnp.max(jnp.where(there[..., None], x, -jnp.inf), 1)
    return jnp.where(jnp.any(there, 1)[:, None], largest, 0)
