"""CLIP (Radford et al., 2021) in Flax NNX, with the weights of a Hugging Face checkpoint."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.layers import ACTIVATIONS, attention, layer_norm

LEGACY_EOS = 2  # what older config.json say; the end of a text is then its highest token id
# Tensors of a checkpoint that no embedding depends on: index buffers and the temperature.
IGNORED = ("*.position_ids", "logit_scale")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """`text_config` of a CLIP `config.json`; defaults as in transformers."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """`vision_config` of a CLIP `config.json`; defaults as in transformers (ViT-B/32)."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The fields of a CLIP `config.json` that shape the arithmetic."""

    text: TextConfig = TextConfig()
    vision: VisionConfig = VisionConfig()
    projection_dim: int = 512

    @classmethod
    def from_folder(cls, folder: Path) -> "ClipConfig":
        """Reads `config.json`; UserError where it is not a CLIP this module computes."""
        values = pretrained.read_config(folder, "clip")
        where = folder / "config.json"
        text = pretrained.from_fields(TextConfig, *_part(values, "text_config", where))
        vision = pretrained.from_fields(VisionConfig, *_part(values, "vision_config", where))
        for tower, name in ((text, "text_config"), (vision, "vision_config")):
            pretrained.check_activation(tower.hidden_act, f"{where}, {name}")
            pretrained.check_heads(tower.hidden_size, tower.num_attention_heads, f"{where}, {name}")
        if vision.patch_size > vision.image_size:
            raise UserError(
                f"{where}: patch_size {vision.patch_size} is more than image_size "
                f"{vision.image_size}; the file is damaged"
            )
        return pretrained.from_fields(cls, values, where, text=text, vision=vision)


def _part(values: dict[str, Any], name: str, where: Path) -> tuple[dict[str, Any], str]:
    """One tower's fields; what old checkpoints repeat under `*_config_dict` goes first."""
    parts = [values.get(name), values.get(f"{name}_dict")]
    for part in parts:
        if not isinstance(part, dict | None):
            raise UserError(f"{where}: {name} holds no JSON object; download the file again")
    return {**(parts[0] or {}), **(parts[1] or {})}, f"{where}, {name}"


class ClipLayer(nnx.Module):
    """Self attention and feed-forward, each behind a LayerNorm and beside a residual (pre-LN)."""

    def __init__(self, config: TextConfig | VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.hidden_size
        linear = partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention_norm = layer_norm(width, config.layer_norm_eps, rngs)
        self.qkv = linear(width, 3 * width)  # query, key and value in one product
        self.out = linear(width, width)
        self.norm = layer_norm(width, config.layer_norm_eps, rngs)
        self.up = linear(width, config.intermediate_size)
        self.down = linear(config.intermediate_size, width)

    def __call__(
        self,
        x: Float[Array, "b s d"],
        bias: Float[Array, "1 1 s s"] | None,
        at: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Output for all tokens (q = s), or for one token of each row (q = 1) at a fraction of
        the work."""
        b, s, d = x.shape
        normed = self.attention_norm(x).astype(x.dtype)
        qkv = self.qkv(normed).reshape(b, s, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))  # each [b, heads, s, d / heads]
        if at is not None:
            q = jnp.take_along_axis(q, at[:, None, None, None], axis=2)
            x = jnp.take_along_axis(x, at[:, None, None], axis=1)
            bias = None if bias is None else bias[0, 0, at][:, None, None]
        values = attention(q * np.asarray((d // self.heads) ** -0.5, x.dtype), k, v, bias)
        x = x + self.out(values.swapaxes(1, 2).reshape(b, -1, d))
        normed = self.norm(x).astype(x.dtype)
        return x + self.down(self.activation(self.up(normed)))


class TextTower(nnx.Module):
    """Causal transformer over tokens; a text's vector is the one of its end token."""

    def __init__(self, config: TextConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.end = config.eos_token_id
        self.dtype = jnp.dtype(dtype)
        embed = partial(nnx.Embed, features=config.hidden_size, param_dtype=dtype, rngs=rngs)
        self.token = embed(config.vocab_size)
        self.position = embed(config.max_position_embeddings)
        self.layers = nnx.List(
            [ClipLayer(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        )
        self.norm = layer_norm(config.hidden_size, config.layer_norm_eps, rngs)

    def __call__(
        self, ids: Int[Array, "b s"], *, pooled_only: bool = False
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b d"]]:
        """Hidden states behind the last norm (q = s, or q = 1 with `pooled_only`: the end token's),
        and the end token's.

        Nothing before the first end token depends on what follows it: pad with anything.
        """
        s = ids.shape[1]
        x = self.token.embedding[ids].astype(jnp.float32) + self.position.embedding[:s]
        x = x.astype(self.dtype)
        end = (ids if self.end == LEGACY_EOS else ids == self.end).argmax(-1)
        seen = jnp.tril(jnp.ones((s, s), bool))
        bias = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)[None, None]
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, bias, end if pooled_only and i == last else None)
        hidden = self.norm(x).astype(self.dtype)
        if pooled_only:
            return hidden, hidden[:, 0]
        return hidden, jnp.take_along_axis(hidden, end[:, None, None], axis=1)[:, 0]


class VisionTower(nnx.Module):
    """Transformer over a picture's patches, row by row, behind a class token."""

    def __init__(self, config: VisionConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, patch = config.hidden_size, config.patch_size
        self.patch = patch
        self.grid = config.image_size // patch
        self.dtype = jnp.dtype(dtype)
        normal = jax.nn.initializers.normal
        self.class_embedding = nnx.Param(normal(width**-0.5)(rngs.params(), (width,), dtype))
        self.patch_kernel = nnx.Param(
            normal(0.02)(rngs.params(), (patch, patch, config.num_channels, width), dtype)
        )
        self.position = nnx.Embed(self.grid**2 + 1, width, param_dtype=dtype, rngs=rngs)
        self.first_norm = layer_norm(width, config.layer_norm_eps, rngs)
        self.layers = nnx.List(
            [ClipLayer(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        )
        self.norm = layer_norm(width, config.layer_norm_eps, rngs)

    def __call__(
        self, pixels: Float[Array, "b h w c"], *, pooled_only: bool = False
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b d"]]:
        """Hidden states of the last layer (q = 1 + patches, or 1 with `pooled_only`: the class
        token's), and the class token's behind the last norm.

        Args:
            pixels: normalised as the checkpoint's preprocessor says; h = w = image_size.
        """
        patches = self.patches(pixels.astype(self.dtype))
        kernel = self.patch_kernel[...].reshape(-1, self.class_embedding.shape[0])
        x = jnp.matmul(patches, kernel, preferred_element_type=jnp.float32)
        first = jnp.broadcast_to(self.class_embedding[...], (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([first.astype(jnp.float32), x], axis=1) + self.position.embedding[...]
        x = self.first_norm(x).astype(self.dtype)
        last = len(self.layers) - 1
        at = jnp.zeros(x.shape[0], jnp.int32)
        for i, layer in enumerate(self.layers):
            x = layer(x, None, at if pooled_only and i == last else None)
        return x, self.norm(x[:, 0]).astype(self.dtype)

    def patches(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b p k"]:
        """The pixels of each patch in a row, so that embedding them is one matrix product; what no
        whole patch covers at the right and at the bottom is left out."""
        b, _, _, channels = pixels.shape
        g, p = self.grid, self.patch
        tiles = pixels[:, : g * p, : g * p].reshape(b, g, p, g, p, channels)
        return tiles.swapaxes(2, 3).reshape(b, g * g, p * p * channels)


class Clip(nnx.Module):
    """Both towers and their projections into one space; what is compared there is the cosine.

    Args:
        dtype: of parameters and arithmetic; LayerNorm and softmax are always float32.
    """

    def __init__(self, config: ClipConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.dtype = jnp.dtype(dtype)
        project = partial(
            nnx.Linear,
            out_features=config.projection_dim,
            use_bias=False,
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )
        self.text = TextTower(config.text, dtype, rngs)
        self.vision = VisionTower(config.vision, dtype, rngs)
        self.text_projection = project(config.text.hidden_size)
        self.visual_projection = project(config.vision.hidden_size)

    def encode_text(self, ids: Int[Array, "b s"]) -> Float[Array, "b c"]:
        """Projected embeddings of tokenised texts, not normalised."""
        return self.text_projection(self.text(ids, pooled_only=True)[1])

    def encode_pixels(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b c"]:
        """Projected embeddings of normalised pictures, not normalised themselves."""
        return self.visual_projection(self.vision(pixels, pooled_only=True)[1])


def checkpoint_names(path: str) -> str | tuple[str, ...]:
    """The tensors of a Hugging Face checkpoint that make up our parameter `path`."""
    *parents, leaf = path.split(".")
    if parents[0].endswith("projection"):
        return f"{parents[0]}.weight"
    tower = f"{parents[0]}_model"
    if leaf == "class_embedding":
        return f"{tower}.embeddings.class_embedding"
    if leaf == "patch_kernel":
        return f"{tower}.embeddings.patch_embedding.weight"
    kind = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}[leaf]
    if parents[1] == "layers":
        part = {
            "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "out": ("self_attn.out_proj",),
            "attention_norm": ("layer_norm1",),
            "up": ("mlp.fc1",),
            "down": ("mlp.fc2",),
            "norm": ("layer_norm2",),
        }[parents[3]]
        return tuple(f"{tower}.encoder.layers.{parents[2]}.{name}.{kind}" for name in part)
    top = {
        "token": "embeddings.token_embedding",
        "position": "embeddings.position_embedding",
        "first_norm": "pre_layrnorm",
        "norm": "final_layer_norm" if parents[0] == "text" else "post_layernorm",
    }[parents[1]]
    return f"{tower}.{top}.{kind}"


def load_clip(folder: Path, dtype: str = "float32") -> Clip:
    """The model of a checkpoint folder (`config.json`, weights), frozen weights in `dtype`.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = ClipConfig.from_folder(folder)
    tensors = pretrained.read(folder, ignore=IGNORED)
    model = nnx.eval_shape(lambda: Clip(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    return pretrained.load(model, tensors, checkpoint_names, where=folder)
