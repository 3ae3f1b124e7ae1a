"""The config's encoders, plain for whoever runs them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.pictures import images

SIDES = ("mention", "entity")
DETECTORS = ("fasterrcnn", "maskrcnn")


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The config's `encoders` and `image` fields, plain, names already resolved to folders or ids.

    Attributes:
        poolings: table of the store -> pooling of the text encoder.
        keep: side -> objects of a picture, the best ones.
    """

    text: str
    clip: str
    image: str
    objects: str
    poolings: Mapping[str, str]
    keep: Mapping[str, int]
    detector_weights: str = ""
    dtype: str = "float32"
    max_length: int = 512
    batch_tokens: int = 4096
    batch_images: int = 32
    preprocess: str = "paper"
    max_pixels: int = images.MAX_PIXELS
    min_side: int = images.MIN_SIDE
    workers: int = 0

    @property
    def detects(self) -> bool:
        """Whether boxes come from a detector that runs here."""
        return self.objects in DETECTORS


def encoder_settings(config: ConfigDict) -> EncoderSettings:
    """The config's encoders, names that are folders under data.root resolved: it has to be there,
    as a data set may bring its own."""
    encoders, image = config.encoders, config.image
    poolings = {}
    for side in SIDES:
        poolings[f"{side}_text"] = encoders[f"{side}_vertex"]
        if encoders[f"{side}_edge"] != encoders[f"{side}_vertex"]:
            poolings[f"{side}_text_edge"] = encoders[f"{side}_edge"]
    root = Path(config.data.root)

    def local(name: str) -> str:
        return str(root / name) if name and (root / name).is_dir() else name

    def same(group: ConfigDict, *names: str) -> dict[str, Any]:
        return {name: group[name] for name in names}

    return EncoderSettings(
        **same(encoders, "objects", "detector_weights", "dtype"),
        **same(encoders, "max_length", "batch_tokens", "batch_images"),
        **same(image, "preprocess", "max_pixels", "min_side", "workers"),
        text=local(encoders.text),
        clip=local(encoders.clip),
        image=local(encoders.image),
        poolings=poolings,
        keep={side: int(encoders[f"{side}_objects"]) for side in SIDES},
    )
