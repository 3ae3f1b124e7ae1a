"""Our CLIP and ResNet as folders that transformers reads too: `config.json` and safetensors."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from drin_jax.encoders import clip, pretrained, resnet


def save_clip(model: clip.Clip, folder: Path) -> None:
    """A CLIPModel folder."""
    config = model.config
    # No arithmetic reads it, but transformers wants it inside the vocabulary.
    start = {"bos_token_id": config.text.eos_token_id - 1}
    fields = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.projection_dim,
        "text_config": dataclasses.asdict(config.text) | start,
        "vision_config": dataclasses.asdict(config.vision),
    }
    # transformers wants a temperature; the published one, since no embedding depends on it.
    temperature = {"logit_scale": np.array(np.log(100.0), np.float32)}
    _save(folder, fields, _tensors(model, clip.NAMES) | temperature)


def save_resnet(model: resnet.ResNet, folder: Path) -> None:
    """A ResNetModel folder."""
    tensors = _tensors(model, resnet.NAMES)
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    counters = {f"{norm}num_batches_tracked": np.array(0) for norm in norms}
    head = {"model_type": "resnet", "architectures": ["ResNetModel"]}
    _save(folder, head | dataclasses.asdict(model.config), tensors | counters)


def _tensors(module: nnx.Module, table: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The opposite of `pretrained.load`: values under a checkpoint's names and layouts."""
    tensors: dict[str, np.ndarray] = {}
    for path, value in jax.tree_util.tree_flatten_with_path(nnx.state(module))[0]:
        ours = pretrained.dotted(path)
        names = pretrained.checkpoint_names(table, ours)
        for name, part in zip(names, np.split(np.asarray(value), len(names), -1), strict=True):
            if ours.endswith("kernel"):
                part = part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T
            tensors[name] = np.ascontiguousarray(part)
    return tensors


def _save(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
