"""CLIP (Radford et al., 2021) in Flax NNX, with the weights of a Hugging Face checkpoint."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from data_pipeline.schema import UserError
from drin_jax.encoders import pretrained
from drin_jax.encoders.layers import TransformerConfig, layer_norm, stack, through

LEGACY_EOS = 2  # what older config.json say; the end of a text is then its highest token id
# Tensors of a checkpoint that no embedding depends on: index buffers and the temperature.
IGNORED = ("*.position_ids", "logit_scale")


_LAYER = {
    "qkv": "self_attn.q_proj|k_proj|v_proj",
    "out": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "norm": "layer_norm2",
}
NAMES = {  # as `pretrained.load` takes them
    "text_projection": "text_projection",
    "visual_projection": "visual_projection",
    "text.token": "text_model.embeddings.token_embedding",
    "text.position": "text_model.embeddings.position_embedding",
    "text.norm": "text_model.final_layer_norm",
    "vision.class_embedding": "vision_model.embeddings.class_embedding",
    "vision.patch_kernel": "vision_model.embeddings.patch_embedding.weight",
    "vision.position": "vision_model.embeddings.position_embedding",
    "vision.first_norm": "vision_model.pre_layrnorm",
    "vision.norm": "vision_model.post_layernorm",
} | {
    f"{tower}.layers.*.{ours}": f"{tower}_model.encoder.layers.{{0}}.{theirs}"
    for tower in ("text", "vision")
    for ours, theirs in _LAYER.items()
}


@dataclasses.dataclass(frozen=True)
class TextConfig(TransformerConfig):
    """`text_config` of a CLIP `config.json`; defaults as in transformers."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True)
class VisionConfig(TransformerConfig):
    """`vision_config` of a CLIP `config.json`; defaults as in transformers (ViT-B/32)."""

    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The fields of a CLIP `config.json` that shape the arithmetic."""

    text: TextConfig = TextConfig()
    vision: VisionConfig = VisionConfig()
    projection_dim: int = 512

    @classmethod
    def from_folder(cls, folder: Path) -> "ClipConfig":
        """Reads `config.json`; UserError where it is not a CLIP this module computes."""
        values, where = pretrained.read_config(folder, "clip")
        text = pretrained.from_fields(TextConfig, *_part(values, "text_config", where))
        vision = pretrained.from_fields(VisionConfig, *_part(values, "vision_config", where))
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


class TextTower(nnx.Module):
    """Causal transformer over tokens; a text's vector is the one of its end token."""

    def __init__(self, config: TextConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.end = config.eos_token_id
        self.dtype = jnp.dtype(dtype)
        embed = partial(nnx.Embed, features=config.hidden_size, param_dtype=dtype, rngs=rngs)
        self.token = embed(config.vocab_size)
        self.position = embed(config.max_position_embeddings)
        self.layers = stack(config, True, dtype, rngs)
        self.norm = layer_norm(config, rngs)

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
        x = through(self.layers, x, bias, end if pooled_only else None)
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
        self.first_norm = layer_norm(config, rngs)
        self.layers = stack(config, True, dtype, rngs)
        self.norm = layer_norm(config, rngs)

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
        x = through(self.layers, x, None, jnp.zeros(len(x), jnp.int32) if pooled_only else None)
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


def load_clip(folder: Path, dtype: str = "float32") -> Clip:
    """The model of a checkpoint folder (`config.json`, weights), frozen weights in `dtype`.

    Raises UserError for another kind of model and for weights that do not fit it.
    """
    config = ClipConfig.from_folder(folder)
    tensors = pretrained.read(folder, ignore=IGNORED)
    build = partial(Clip, config, dtype=jnp.dtype(dtype))
    return pretrained.load(build, tensors, NAMES, where=folder)
