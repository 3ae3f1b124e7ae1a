"""The config's encoders: checked before anything is read, and plain for whoever runs them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.pictures import images
from data_pipeline.schema import UserError

SIDES = ("mention", "entity")
DETECTORS = ("fasterrcnn", "maskrcnn")
PREPROCESSES = ("paper", "processor")


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


def check(config: ConfigDict) -> None:
    """UserError on fields that contradict each other."""
    encoders, image = config.encoders, config.image
    if encoders.pictures and (encoders.image or encoders.clip or encoders.objects):
        raise UserError(
            "encoders.pictures brings its own features; unset encoders.image, clip and objects"
        )
    for name in ("clip", "objects"):
        if encoders[name] and not encoders.image:
            raise UserError(f"encoders.{name} needs encoders.image, the pictures' vertex feature")
    if encoders.objects and min(encoders[f"{side}_objects"] for side in SIDES) < 1:
        raise UserError("encoders.mention_objects and entity_objects must be at least 1")
    if image.preprocess not in PREPROCESSES:
        raise UserError(
            f"image.preprocess is {image.preprocess!r}; known are {', '.join(PREPROCESSES)}"
        )


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

    return EncoderSettings(
        text=local(encoders.text),
        clip=local(encoders.clip),
        image=local(encoders.image),
        objects=encoders.objects,
        poolings=poolings,
        keep={side: int(encoders[f"{side}_objects"]) for side in SIDES},
        detector_weights=encoders.detector_weights,
        dtype=encoders.dtype,
        max_length=encoders.max_length,
        batch_tokens=encoders.batch_tokens,
        batch_images=encoders.batch_images,
        preprocess=image.preprocess,
        max_pixels=image.max_pixels,
        min_side=image.min_side,
        workers=image.workers,
    )
