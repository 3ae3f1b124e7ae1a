"""The fields of a CLIP checkpoint's `config.json`."""

import dataclasses
from pathlib import Path
from typing import Any

from data_pipeline.schema import UserError
from drin_jax.encoders import hf
from drin_jax.encoders.config_fields import check_activation, check_heads, from_fields

LEGACY_EOS = 2  # what older config.json say; the end of a text is then its highest token id


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
        values = hf.read_config(folder, "clip")
        where = folder / "config.json"
        text = from_fields(TextConfig, *_part(values, "text_config", where))
        vision = from_fields(VisionConfig, *_part(values, "vision_config", where))
        for tower, name in ((text, "text_config"), (vision, "vision_config")):
            check_activation(tower.hidden_act, f"{where}, {name}")
            check_heads(tower.hidden_size, tower.num_attention_heads, f"{where}, {name}")
        if vision.patch_size > vision.image_size:
            raise UserError(
                f"{where}: patch_size {vision.patch_size} is more than image_size "
                f"{vision.image_size}; the file is damaged"
            )
        return from_fields(cls, values, where, text=text, vision=vision)

    def as_json(self) -> dict[str, Any]:
        """What `config.json` holds, for transformers and for `from_folder`."""
        # No arithmetic reads it, but transformers wants it inside the vocabulary.
        start = {"bos_token_id": self.text.eos_token_id - 1}
        return {
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "projection_dim": self.projection_dim,
            "text_config": dataclasses.asdict(self.text) | start,
            "vision_config": dataclasses.asdict(self.vision),
        }


def _part(values: dict[str, Any], name: str, where: Path) -> tuple[dict[str, Any], str]:
    """One tower's fields; what old checkpoints repeat under `*_config_dict` goes first."""
    parts = [values.get(name), values.get(f"{name}_dict")]
    for part in parts:
        if not isinstance(part, dict | None):
            raise UserError(f"{where}: {name} holds no JSON object; download the file again")
    return {**(parts[0] or {}), **(parts[1] or {})}, f"{where}, {name}"
