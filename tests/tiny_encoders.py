"""Tiny frozen encoders with random weights, in Hugging Face's layout, for tests."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from data_pipeline import sample_encoder
from drin_jax.encoders.clip import Clip, save_clip
from drin_jax.encoders.clip_config import ClipConfig, TextConfig, VisionConfig
from drin_jax.encoders.resnet import ResNet, ResNetConfig, save_resnet

SIDE = 32  # pixels of both encoders' inputs
VECTOR = 12  # width of CLIP's vectors
POOLED = 16  # width of ResNet's


def write(folder: Path) -> dict[str, str]:
    """Writes `text/`, `clip/` and `resnet/` where they are not yet; config overrides that name
    them."""
    if not (folder / "resnet").exists():
        sample_encoder.write(folder / "text", seed=0)
        _write_clip(folder / "clip")
        _write_resnet(folder / "resnet")
    return {
        "encoders.text": str(folder / "text"),
        "encoders.clip": str(folder / "clip"),
        "encoders.image": str(folder / "resnet"),
    }


def _write_clip(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"
    ends = ("<|startoftext|>", "<|endoftext|>")
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *ends]
    towers: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2
    }  # fmt: skip
    config = ClipConfig(
        TextConfig(
            vocab_size=len(pieces),
            max_position_embeddings=24,
            eos_token_id=len(pieces) - 1,
            **towers,
        ),
        VisionConfig(image_size=SIDE, patch_size=8, **towers),
        projection_dim=VECTOR,
    )
    save_clip(Clip(config, dtype=jnp.float32, rngs=nnx.Rngs(1)), folder)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 24,
        "bos_token": ends[0],
        "eos_token": ends[1],
        "pad_token": ends[1],
        "unk_token": ends[1],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    _preprocessor(folder, "CLIP", crop_size=SIDE, size=SIDE)


def _write_resnet(folder: Path) -> None:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=(8, POOLED), depths=(1, 1), layer_type="basic"
    )
    save_resnet(ResNet(config, dtype=jnp.float32, rngs=nnx.Rngs(2)), folder)
    _preprocessor(folder, "ConvNext", size=SIDE, crop_pct=0.875)


def _preprocessor(folder: Path, kind: str, **fields: Any) -> None:
    settings = {
        "image_processor_type": f"{kind}ImageProcessor",
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.3, 0.2, 0.25],
        "resample": 3,
        **fields,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
