"""The transformer that BERT and CLIP's two towers are made of, and its parts."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {  # by their Hugging Face names
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_python": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
_QUERIES = 64


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The fields of a `config.json` that shape a transformer; defaults as BERT's."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12


class TransformerLayer(nnx.Module):
    """Self attention and feed-forward, each beside a residual. LayerNorm comes behind each sum, as
    in BERT, or with `norm_first` before each of the two, as in CLIP."""

    def __init__(
        self, config: TransformerConfig, norm_first: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        width = config.hidden_size
        linear = partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.norm_first = norm_first
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention_norm = layer_norm(config, rngs)
        self.qkv = linear(width, 3 * width)  # query, key and value in one product
        self.out = linear(width, width)
        self.norm = layer_norm(config, rngs)
        self.up = linear(width, config.intermediate_size)
        self.down = linear(config.intermediate_size, width)

    def __call__(
        self,
        x: Float[Array, "b s d"],
        bias: Float[Array, "#b 1 #s s"] | None,
        at: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Output for all tokens (q = s), or for the one `at` of each row (q = 1) at a fraction of
        the work."""
        residual = x if at is None else jnp.take_along_axis(x, at[:, None, None], axis=1)
        if self.norm_first:
            x = residual + self.out(self.attend(self.attention_norm(x).astype(x.dtype), bias, at))
            return x + self.feed(self.norm(x).astype(x.dtype))
        attended = self.out(self.attend(x, bias, at))
        x = self.attention_norm(attended + residual).astype(x.dtype)
        return self.norm(self.feed(x) + x).astype(x.dtype)

    def feed(self, x: Float[Array, "b q d"]) -> Float[Array, "b q d"]:
        """The two products between which the activation is."""
        return self.down(self.activation(self.up(x)))

    def attend(
        self,
        x: Float[Array, "b s d"],
        bias: Float[Array, "#b 1 #s s"] | None,
        at: Int[Array, " b"] | None,
    ) -> Float[Array, "b q d"]:
        """Softmax attention of every token, or of the one `at` of each row, to all tokens."""
        b, s, d = x.shape
        qkv = self.qkv(x).reshape(b, s, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each [b, heads, s, d / heads]
        shared = bias is None or bias.shape[2] == 1  # one bias for all queries
        if at is not None:
            q = jnp.take_along_axis(q, at[:, None, None, None], axis=2)
            bias = bias if bias is None or shared else bias[0, 0, at][:, None, None]
        q = q * np.asarray((d // self.heads) ** -0.5, x.dtype)
        if q.shape[2] % _QUERIES or q.shape[2] <= 2 * _QUERIES or not shared:
            values = attention(q, k, v, bias)
        else:  # few queries at a time, so that their weights stay in the cache
            blocks = jnp.stack(jnp.split(q, q.shape[2] // _QUERIES, axis=2))
            mapped = jax.lax.map(lambda block: attention(block, k, v, bias), blocks)
            values = jnp.concatenate(list(mapped), axis=2)
        return values.swapaxes(1, 2).reshape(b, -1, d)


def stack(
    config: TransformerConfig, norm_first: bool, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.List[TransformerLayer]:
    """The layers of a transformer."""
    count = range(config.num_hidden_layers)
    return nnx.List([TransformerLayer(config, norm_first, dtype, rngs) for _ in count])


def through(
    layers: Iterable[TransformerLayer],
    x: Float[Array, "b s d"],
    bias: Float[Array, "#b 1 #s s"] | None,
    at: Int[Array, " b"] | None = None,
) -> Float[Array, "b q d"]:
    """Output of the last layer; with `at` of that token of each row alone (q = 1)."""
    *early, last = layers
    for layer in early:
        x = layer(x, bias)
    return last(x, bias, at)


def attention(
    q: Float[Array, "b h q e"],
    k: Float[Array, "b h s e"],
    v: Float[Array, "b h s e"],
    bias: Float[Array, "#b 1 #q s"] | None,
) -> Float[Array, "b h q e"]:
    """softmax(q kᵀ + bias) v of every head; the queries come scaled."""
    # Heads lead and the softmax's division comes last: on a CPU two to five times as fast as
    # jax.nn.dot_product_attention.
    logits = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    values = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (values / total).astype(v.dtype)


def layer_norm(config: TransformerConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in float32, whatever the dtype of what it is given."""
    # The two-pass variance: the one-pass one loses digits where the mean is large.
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )
