"""Checkpoint folders of a tiny CLIP and a tiny ResNet, from the committed reference arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support.paths import GOLDEN

LETTERS = "abcdefghijklmnopqrstuvwxyz"
START, END = 54, 55
CLIP_PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 18, "width": 18},
    "size": {"shortest_edge": 18},
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "resample": 3,
}
RESNET_PREPROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 23},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of tests/golden/{name}_tiny.npz."""
    with np.load(GOLDEN / f"{name}_tiny.npz") as file:
        return dict(file)


def weights(name: str) -> dict[str, np.ndarray]:
    """The weights among them, by their checkpoint name."""
    return {key[2:]: value for key, value in golden(name).items() if key.startswith("w/")}


def write_checkpoint(
    folder: Path, name: str, tensors: dict[str, np.ndarray] | None = None, **config: Any
) -> Path:
    """`config.json`, with other fields where given, weights and preprocessor."""
    folder.mkdir(exist_ok=True)
    values = json.loads(str(golden(name)["config"])) | config
    (folder / "config.json").write_text(json.dumps(values))
    tensors = weights(name) if tensors is None else tensors
    save_file(
        {key: np.ascontiguousarray(value) for key, value in tensors.items()},
        folder / "model.safetensors",
    )
    preprocessor = CLIP_PREPROCESSOR if name == "clip" else RESNET_PREPROCESSOR
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def write_clip(folder: Path, **config: Any) -> Path:
    """A CLIP checkpoint with its tokenizer: letters, "th", "the", start and end."""
    import transformers

    write_checkpoint(folder, "clip", **config)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "th", "the</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[("t", "h"), ("th", "e</w>")]
    )
    tokenizer.save_pretrained(folder)
    return folder
