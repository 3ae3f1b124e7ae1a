"""transformers' PyTorch CLIP and ResNet with random weights: the peers of our encoders."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.initialization import no_init_weights

transformers.utils.logging.set_verbosity_error()  # on made-up vocabularies it has remarks

CLIP_SHAPES: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"text": {}, "vision": {}},
    "ViT-B/16": {"text": {}, "vision": {"patch_size": 16}},
    "ViT-L/14": {
        "projection_dim": 768,
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
    },
}
RESNET_SHAPES: dict[str, dict[str, Any]] = {
    "ResNet-18": {
        "layer_type": "basic",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
    },
    "ResNet-34": {
        "layer_type": "basic",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [3, 4, 6, 3],
    },
    "ResNet-50": {"depths": [3, 4, 6, 3]},
    "ResNet-101": {"depths": [3, 4, 23, 3]},
    "ResNet-152": {"depths": [3, 8, 36, 3]},
}


def clip(text: Mapping[str, Any], vision: Mapping[str, Any], projection_dim: int = 512) -> Any:
    """A CLIPModel with hidden states of order 1 in which every weight counts."""
    config = transformers.CLIPConfig(
        text_config=dict(text), vision_config=dict(vision), projection_dim=projection_dim
    )
    with no_init_weights():
        return randomised(transformers.CLIPModel(config))


def resnet(shape: Mapping[str, Any], head: bool = False) -> Any:
    """A ResNetModel, or one with a classifier on top, likewise."""
    kind = transformers.ResNetForImageClassification if head else transformers.ResNetModel
    with no_init_weights():
        return randomised(kind(transformers.ResNetConfig(**shape)))


def randomised(model: nn.Module) -> nn.Module:
    """The model with weights drawn from a seed, of a size that keeps hidden states of order 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or not tensor.ndim:
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:  # scales around 1; biases, means and the class token around 0
                tensor.normal_(float("norm" in name and name.endswith("weight")), 0.1)
            elif "embedding.weight" in name and tensor.ndim == 2:
                tensor.normal_(0, 0.3)
            else:
                tensor.normal_(0, math.sqrt((2 if tensor.ndim == 4 else 1) / tensor[0].numel()))
        # Nothing normalises a frozen residual stream: keep what its branches add small.
        for block in model.modules():
            if type(block).__name__ in ("ResNetBasicLayer", "ResNetBottleNeckLayer"):
                layers: Any = block.layer
                layers[-1].normalization.weight.mul_(0.1)
    return model.eval()


def tensors(model: nn.Module) -> dict[str, np.ndarray]:
    """The model's weights by name, as its checkpoint would hold them."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    """[b, h, w, c] -> [b, c, h, w]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
