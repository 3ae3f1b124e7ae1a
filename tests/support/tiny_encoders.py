"""Small frozen encoders in Hugging Face's layout for tests: those of the sample world."""

import shutil
from pathlib import Path

from data_pipeline.sample import tiny_bert, world

SIDE = 64  # pixels of both encoders' inputs
VECTOR = 48  # width of CLIP's vectors
POOLED = 64  # width of ResNet's


def write(folder: Path) -> dict[str, str]:
    """Writes `text/`, `clip/` and `resnet/` where they are not yet; config overrides that name
    them."""
    if not (folder / "resnet").exists():
        tiny_bert.write(folder / "text", seed=0)
        for name in ("clip", "resnet"):
            shutil.copytree(world.WEIGHTS / name, folder / name)
    return {
        "encoders.text": str(folder / "text"),
        "encoders.clip": str(folder / "clip"),
        "encoders.image": str(folder / "resnet"),
    }
