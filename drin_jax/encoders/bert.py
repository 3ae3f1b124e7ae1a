"""BERT (Devlin et al., 2019) in Flax NNX, with the weights of a Hugging Face checkpoint."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.layers import ACTIVATIONS, attention, layer_norm

# Tensors of a checkpoint that are no part of the encoder: the heads of BertForPreTraining and its
# kin, and an index buffer that old versions of transformers saved.
IGNORED = ("cls.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The fields of a BERT `config.json` that shape the arithmetic; defaults as in transformers."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @classmethod
    def from_folder(cls, folder: Path) -> "BertConfig":
        """Reads `config.json`; UserError where it is not a BERT this module computes."""
        values = pretrained.read_config(folder, "bert")
        where = folder / "config.json"
        if values.get("is_decoder"):
            raise UserError(f"{where}: is_decoder is true; pass a bidirectional BERT encoder")
        if (kind := values.get("position_embedding_type", "absolute")) != "absolute":
            raise UserError(
                f"{where}: position_embedding_type {kind!r} is not supported; pass a BERT with "
                "absolute positions"
            )
        config = pretrained.from_fields(cls, values, where)
        pretrained.check_activation(config.hidden_act, where)
        pretrained.check_heads(config.hidden_size, config.num_attention_heads, where)
        return config


class BertLayer(nnx.Module):
    """Self attention and feed-forward, each followed by a residual and a LayerNorm (post-LN)."""

    def __init__(self, config: BertConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.hidden_size
        linear = partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        norm = partial(layer_norm, width, config.layer_norm_eps, rngs)
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.qkv = linear(width, 3 * width)  # query, key and value in one product
        self.out = linear(width, width)
        self.attention_norm = norm()
        self.up = linear(width, config.intermediate_size)
        self.down = linear(config.intermediate_size, width)
        self.norm = norm()

    def __call__(
        self, x: Float[Array, "b s d"], bias: Float[Array, "b 1 1 s"], first_only: bool = False
    ) -> Float[Array, "b q d"]:
        """Output for all tokens (q = s), or for the first one (q = 1) at a fraction of the work."""
        attended = self.out(self.attend(x, bias, first_only))
        x = self.attention_norm(attended + (x[:, :1] if first_only else x)).astype(x.dtype)
        hidden = self.down(self.activation(self.up(x)))
        return self.norm(hidden + x).astype(x.dtype)

    def attend(
        self, x: Float[Array, "b s d"], bias: Float[Array, "b 1 1 s"], first_only: bool
    ) -> Float[Array, "b q d"]:
        """Softmax attention of every token, or of the first one, to all tokens."""
        b, s, d = x.shape
        qkv = self.qkv(x).reshape(b, s, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each [b, heads, s, d / heads]
        q = (q[:, :, :1] if first_only else q) * np.asarray((d // self.heads) ** -0.5, x.dtype)
        if q.shape[2] % _QUERIES or q.shape[2] <= 2 * _QUERIES:
            values = attention(q, k, v, bias)
        else:  # few queries at a time, so that their weights stay in the cache
            blocks = jnp.stack(jnp.split(q, q.shape[2] // _QUERIES, axis=2))
            mapped = jax.lax.map(lambda block: attention(block, k, v, bias), blocks)
            values = jnp.concatenate(list(mapped), axis=2)
        return values.swapaxes(1, 2).reshape(b, -1, d)


_QUERIES = 64


class Bert(nnx.Module):
    """The encoder. `pooler` is None where the checkpoint has none.

    Args:
        dtype: of parameters and arithmetic; LayerNorm and softmax are always float32.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        pooler: bool = True,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.dtype = jnp.dtype(dtype)
        width = config.hidden_size
        embed = partial(nnx.Embed, features=width, param_dtype=dtype, rngs=rngs)
        self.word = embed(config.vocab_size)
        self.position = embed(config.max_position_embeddings)
        self.token_type = embed(config.type_vocab_size)
        self.norm = layer_norm(width, config.layer_norm_eps, rngs)
        self.layers = nnx.List(
            [BertLayer(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        )
        self.pooler = (
            nnx.Linear(width, width, dtype=dtype, param_dtype=dtype, rngs=rngs) if pooler else None
        )

    def __call__(
        self,
        input_ids: Int[Array, "b s"],
        attention_mask: Int[Array, "b s"] | Bool[Array, "b s"],
        token_type_ids: Int[Array, "b s"] | None = None,
        *,
        first_only: bool = False,
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b d"] | None]:
        """Hidden states of the last layer, and tanh(W h_CLS + b) or None without a pooler.

        Args:
            attention_mask: 1 or True on real tokens; hidden states of the others mean nothing.
            first_only: return the first token's hidden state alone (q = 1, otherwise q = s); the
                last layer then computes nothing else.
        """
        types = 0 if token_type_ids is None else token_type_ids
        x = (
            self.word.embedding[input_ids].astype(jnp.float32)
            + self.token_type.embedding[types]
            + self.position.embedding[: input_ids.shape[1]]
        )
        x = self.norm(x).astype(self.dtype)
        bias = jnp.where(attention_mask[:, None, None, :] > 0, 0.0, jnp.finfo(jnp.float32).min)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, bias, first_only and i == last)
        return x, None if self.pooler is None else jnp.tanh(self.pooler(x[:, 0]))


def checkpoint_names(path: str) -> str | tuple[str, ...]:
    """The tensors of a Hugging Face checkpoint that make up our parameter `path`."""
    *parents, leaf = path.split(".")
    kind = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}[leaf]
    if parents[0] == "layers":
        part = {
            "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
            "out": ("attention.output.dense",),
            "attention_norm": ("attention.output.LayerNorm",),
            "up": ("intermediate.dense",),
            "down": ("output.dense",),
            "norm": ("output.LayerNorm",),
        }[parents[2]]
        return tuple(f"encoder.layer.{parents[1]}.{name}.{kind}" for name in part)
    top = {
        "word": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "token_type": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
    }[parents[0]]
    return f"{top}.{kind}"


def load_bert(folder: Path, dtype: str = "float32") -> Bert:
    """The model of a checkpoint folder (`config.json`, weights), frozen weights in `dtype`.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = BertConfig.from_folder(folder)
    tensors = pretrained.read(folder, prefix="bert.", ignore=IGNORED)
    # Checkpoints from before 2019's renaming (bert-base-cased is one) say gamma and beta.
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    pooler = any(name.startswith("pooler.") for name in tensors)
    model = nnx.eval_shape(
        lambda: Bert(config, pooler=pooler, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    )
    return pretrained.load(model, tensors, checkpoint_names, where=folder)
