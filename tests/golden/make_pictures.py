"""Makes clip_tiny.npz and resnet_tiny.npz: `python -m tests.golden.make_pictures`.

transformers' PyTorch CLIPModel and ResNetForImageClassification on random weights, all float32 on a
CPU. Each file holds `config` (JSON), the weights by their checkpoint name after "w/", inputs, last
hidden states and pooled vectors. CLIP has the older end-of-text convention (the highest token id)
and a picture that its patches do not cover; ResNet has a head on top and strides in odd places.
"""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks import torch_encoders

TEXT = {
    "vocab_size": 56,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "eos_token_id": 2,
    "bos_token_id": 54,
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 18,
    "patch_size": 5,
}
RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [16, 20],
    "depths": [1, 2],
    "downsample_in_first_stage": True,
    "downsample_in_bottleneck": True,
    "num_labels": 3,
}


def write(name: str, model: torch.nn.Module, config: dict, **arrays: np.ndarray) -> None:
    weights = {f"w/{key}": value for key, value in torch_encoders.tensors(model).items()}
    path = Path(__file__).parent / f"{name}.npz"
    np.savez_compressed(path, config=json.dumps(config), **arrays, **weights)  # type: ignore[arg-type]


def main() -> None:
    rng = np.random.default_rng(0)
    clip = torch_encoders.clip(TEXT, VISION, projection_dim=12)
    end = TEXT["vocab_size"] - 1
    ids = rng.integers(0, end, (3, 11)).astype(np.int32)
    ids[np.arange(11) >= np.array([[10], [6], [1]])] = end
    pixels = rng.normal(size=(2, 18, 18, 3)).astype(np.float32)
    with torch.no_grad():
        text = clip.get_text_features(torch.from_numpy(ids).long())
        picture = clip.get_image_features(torch_encoders.channels_first(pixels))
    write(
        "clip_tiny",
        clip,
        {
            "model_type": "clip",
            "text_config": TEXT,
            "vision_config": VISION,
            "projection_dim": 12,
        },
        ids=ids,
        pixels=pixels,
        text_hidden=text.last_hidden_state.numpy(),
        text_embedding=text.pooler_output.numpy(),
        picture_hidden=picture.last_hidden_state.numpy(),
        picture_embedding=picture.pooler_output.numpy(),
    )
    resnet = torch_encoders.resnet(RESNET, head=True)
    pixels = rng.normal(size=(2, 23, 23, 3)).astype(np.float32)
    with torch.no_grad():
        out = resnet.resnet(torch_encoders.channels_first(pixels))
    write(
        "resnet_tiny",
        resnet,
        {"model_type": "resnet"} | RESNET,
        pixels=pixels,
        regions=out.last_hidden_state.flatten(2).transpose(1, 2).numpy(),
        pooled=out.pooler_output.flatten(1).numpy(),
    )


if __name__ == "__main__":
    main()
