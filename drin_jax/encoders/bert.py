"""BERT (Devlin et al., 2019) in Flax NNX, with the weights of a Hugging Face checkpoint."""

import dataclasses
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.layers import TransformerConfig, layer_norm, stack, through

# Tensors of a checkpoint that are no part of the encoder: the heads of BertForPreTraining and its
# kin, and an index buffer that old versions of transformers saved.
IGNORED = ("cls.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")


NAMES = {  # as `pretrained.load` takes them
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "token_type": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
    "layers.*.qkv": "encoder.layer.{0}.attention.self.query|key|value",
    "layers.*.out": "encoder.layer.{0}.attention.output.dense",
    "layers.*.attention_norm": "encoder.layer.{0}.attention.output.LayerNorm",
    "layers.*.up": "encoder.layer.{0}.intermediate.dense",
    "layers.*.down": "encoder.layer.{0}.output.dense",
    "layers.*.norm": "encoder.layer.{0}.output.LayerNorm",
}


@dataclasses.dataclass(frozen=True)
class BertConfig(TransformerConfig):
    """The fields of a BERT `config.json` that shape the arithmetic; defaults as in transformers."""

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2

    @classmethod
    def from_folder(cls, folder: Path) -> "BertConfig":
        """Reads `config.json`; UserError where it is not a BERT this module computes."""
        values, where = pretrained.read_config(folder, "bert")
        if values.get("is_decoder"):
            raise UserError(f"{where}: is_decoder is true; pass a bidirectional BERT encoder")
        if (kind := values.get("position_embedding_type", "absolute")) != "absolute":
            raise UserError(
                f"{where}: position_embedding_type {kind!r} is not supported; pass a BERT with "
                "absolute positions"
            )
        return pretrained.from_fields(cls, values, where)


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
        self.norm = layer_norm(config, rngs)
        self.layers = stack(config, False, dtype, rngs)
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
        x = through(self.layers, x, bias, jnp.zeros(len(x), jnp.int32) if first_only else None)
        return x, None if self.pooler is None else jnp.tanh(self.pooler(x[:, 0]))


def load_bert(folder: Path, dtype: str = "float32") -> Bert:
    """The model of a checkpoint folder (`config.json`, weights), frozen weights in `dtype`.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = BertConfig.from_folder(folder)
    found = tensors(folder)
    pooler = any(name.startswith("pooler.") for name in found)
    build = partial(Bert, config, pooler=pooler, dtype=jnp.dtype(dtype))
    return pretrained.load(build, found, NAMES, where=folder)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Those of a checkpoint that are of the encoder, by their names now."""
    found = pretrained.read(folder, prefix="bert.", ignore=IGNORED)
    # Checkpoints from before 2019's renaming (bert-base-cased is one) say gamma and beta.
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        found = {name.replace(old, new): value for name, value in found.items()}
    return found
