"""The extraction with a stand-in for a detector's network."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.pictures import images
from data_pipeline.sample import tiny_bert
from drin_jax.encoders.detector import Detector
from drin_jax.encoders.picture_encoders import ResNetEncoder
from drin_jax.extract import preparation
from drin_jax.extract.pairs import edges
from tests.encoders.detector_test import stand_in, weights
from tests.support import picture_world
from tests.support.picture_checkpoints import write_checkpoint


def test_vv_is_equation_11_on_what_the_detector_found(tmp_path, monkeypatch):
    """Of each picture one object outside of it, which does not count, and two inside, the better
    one second; in the picture of entity 1 nothing."""
    world = tmp_path / "world"
    picture_world.write(world, 4, 4)
    lost = np.asarray(Image.open(world / "images/e1.png")).shape[:2]

    def found(pixels: np.ndarray) -> tuple[Any, Any]:
        height, width = pixels.shape[:2]
        if (height, width) == lost:
            return [], []
        inner = [[3.0, 4.0, 33.0, 44.0], [10.0, 5.0, float(width), float(height)]]
        return [[900, 900, 950, 950], *inner], [0.95, 0.25, 0.75]

    stand_in(monkeypatch, found)
    encoders = tmp_path / "encoders"  # made here: CLIP's, which is not needed, takes seconds
    tiny_bert.write(encoders / "text", seed=0)
    write_checkpoint(encoders / "resnet", "resnet")
    config = picture_world.config(
        world,
        encoders,
        **{
            "encoders.objects": "fasterrcnn",
            "encoders.detector_weights": str(weights(tmp_path)),
            "encoders.clip": "",
            "encoders.batch_images": 1,  # one compilation
            "encoders.mention_objects": 3,
            "encoders.entity_objects": 3,
        },
    )
    store = preparation.prepare(config, tmp_path / "work")
    resnet = ResNetEncoder(encoders / "resnet")
    side = images.processor(resnet.preprocessor, "here").height

    def objects(name: str) -> np.ndarray:
        """Unit vectors [2, v], the better one first."""
        with Image.open(world / name) as file:
            image = file.convert("RGB")
        parts = [image.crop((10, 5, *image.size)), image.crop((3, 4, 33, 44))]
        crops = [np.asarray(part.resize((side, side), Image.Resampling.BILINEAR)) for part in parts]
        vectors = resnet.encode(np.stack(crops))["pooled"]
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    score = np.array([0.75, 0.25])
    wanted = (
        score @ (objects("images/m3.jpg") @ objects("images/e0.png").T) @ score / score.sum() ** 2
    )
    rows = {side: store.strings(f"{side}_id").index for side in ("mention", "entity")}
    pair = np.array([[rows["entity"]("Q0"), rows["entity"]("Q1")]])
    vv = edges(store.array, np.array([rows["mention"]("m3")]), pair)[0, 3]
    assert vv[0] == pytest.approx(wanted, abs=1e-6)
    assert vv[1] == 0
    assert store.array("entity_has_image")[rows["entity"]("Q1")]
    made = Detector("fasterrcnn", weights=config.encoders.detector_weights)
    assert store.made_from["encoder files"]["detector"] == made.fingerprint
