"""DZMNED, zero-shot multimodal named entity disambiguation (Moon et al., ACL 2018)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from drin_jax.models.graph import match, only, unit
from drin_jax.models.recurrent import LSTM, both_ways
from drin_jax.types import Aux, GraphBatch

SYMBOLS = 257  # 256 bytes and padding
EMBEDDING, MOST_HIDDEN = 32, 32  # of the characters' encoder, which reads b r names a step


class _Context(nnx.Module):
    """Words around a mention: a bidirectional LSTM over its text's tokens, read out at the mention.

    The forward half has then read up to the mention's last token, the backward half down to its
    first, so that two mentions of one text differ.
    """

    def __init__(self, text_width: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        hidden = max(width // 2, 1)
        self.forward = LSTM(text_width, hidden, dtype=dtype, rngs=rngs)
        self.backward = LSTM(text_width, hidden, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(2 * hidden, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "b s t"], mask: Bool[Array, "b s"], span: Int[Array, "b 2"]
    ) -> Float[Array, "b d"]:
        position = jnp.arange(tokens.shape[1])
        until = mask & (position < span[:, 1:])
        since = mask & (position >= span[:, :1])
        return self.out(both_ways(self.forward, self.backward, tokens, until, since))


class _Characters(nnx.Module):
    """Names as vectors: bytes through an embedding and an LSTM, whose last state is the name's."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.width = min(MOST_HIDDEN, width)
        self.embed = nnx.Embed(SYMBOLS, EMBEDDING, dtype=dtype, rngs=rngs)
        self.lstm = LSTM(EMBEDDING, self.width, dtype=dtype, rngs=rngs)

    def __call__(self, names: Int[Array, "*n c"]) -> Float[Array, "*n h"]:
        flat = names.reshape(-1, names.shape[-1])
        last, _ = self.lstm(self.lstm.inputs(self.embed(flat)), flat > 0)
        return last.reshape(*names.shape[:-1], self.width)


class DZMNED(nnx.Module):
    """Modality attention over a mention's words, characters and picture.

    With x_m the modality m of the mention, a linear map of: the words' context (a bidirectional
    LSTM), the name's characters (one LSTM for mentions and entities), the picture's vector:

        α = softmax(sigmoid(W [x_words; x_characters; x_picture]));   fused = sum_m α_m x_m
        score = ( cos(fused, W_e entity text) + cos(mention's name, entity's name) ) / 2

    computed as the cosine of [unit(fused); unit(name)] with the entity's: a part that one side
    lacks is zero there. What a mention lacks gets no attention, and without pictures there are two
    modalities. The paper matches with embeddings of a knowledge graph; here the entity is its text.
    """

    fields: ClassVar[tuple[str, ...]] = ("width",)
    needs: ClassVar[tuple[str, ...]] = ("tokens", "characters")

    def __init__(
        self, text_width: int, image_width: int, *, width: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.context = _Context(text_width, width, dtype=dtype, rngs=rngs)
        self.characters = _Characters(width, dtype=dtype, rngs=rngs)
        self.name = nnx.Linear(self.characters.width, width, dtype=dtype, rngs=rngs)
        self.image = nnx.Linear(image_width, width, dtype=dtype, rngs=rngs) if image_width else None
        modalities = 3 if image_width else 2
        self.attention = nnx.Linear(modalities * width, modalities, dtype=dtype, rngs=rngs)
        self.entity = nnx.Linear(text_width, width, dtype=dtype, rngs=rngs)

    def __call__(self, batch: GraphBatch) -> tuple[Float[Array, "b scored"], Aux]:
        """Scores [b, scored slots], 0 for an entity with neither text nor name; `aux` also holds
        `attention` [b, 3], the weights of words, characters and picture ([b, 2] without)."""
        mask, own = batch.needed("mention_token_mask"), batch.needed("mention_characters")
        names = jnp.concatenate([own[:, None], batch.needed("entity_characters")], 1)
        read, there = self.characters(names), jnp.any(names > 0, -1)
        name, entity_name = read[:, 0], read[:, 1:]
        named, entity_named = there[:, 0], there[:, 1:]
        tokens, span = batch.needed("mention_tokens"), batch.needed("mention_span")
        parts, present = [self.context(tokens, mask, span), self.name(name)], [mask.any(1), named]
        if self.image is not None:
            parts.append(self.image(batch.mention_image))
            present.append(batch.mention_has_image)
        fused, weights = self._fuse(parts, present)
        text = only(self.entity(batch.entity_text), batch.entity_has_text)
        mention = jnp.concatenate([unit(fused), unit(name)], -1)
        entity = jnp.concatenate([unit(text), unit(entity_name)], -1)
        scores, aux = match(batch, mention, entity, batch.entity_has_text | entity_named)
        return scores, aux | {"attention": weights}

    def _fuse(
        self, parts: list[Float[Array, "b d"]], there: list[Bool[Array, " b"]]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b m"]]:
        present = jnp.stack(there, 1)
        modalities = jnp.where(present[..., None], jnp.stack(parts, 1), 0)
        logits = self.attention(modalities.reshape(modalities.shape[0], -1)).astype(jnp.float32)
        logits = jnp.where(present, jax.nn.sigmoid(logits), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits)
        return jnp.einsum("bm,bmd->bd", weights.astype(modalities.dtype), modalities), weights
