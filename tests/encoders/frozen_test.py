"""What all encoders share: devices, precision, empty calls, odd characters."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder
from drin_jax.encoders.text_encoder import TextEncoder
from tests.encoders.text_encoder_test import write_encoder
from tests.support.commands import run
from tests.support.picture_checkpoints import write_checkpoint, write_clip
from tests.support.tolerance import assert_close

BFLOAT16 = 0.05  # of the scale: eight bits, a few layers
TEXTS = ["the river", "Paris", "", "a \ufffd b", "the cat saw the river by New York"] * 5
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 18, 18, 3)).astype(np.uint8)

Encode = Callable[[int], np.ndarray]  # the first so many of what there is -> vectors


def encode(folders: dict[str, Path], **options) -> dict[str, Encode]:
    """Each way there is from texts or pictures to vectors; batches are small."""
    text = TextEncoder(folders["text"], batch_tokens=32, **options)
    clip = ClipEncoder(folders["clip"], batch=4, **options)
    resnet = ResNetEncoder(folders["resnet"], batch=4, **options)
    return {
        "text": lambda n: text.encode(TEXTS[:n], None, ["mean"])["mean"],
        "clip texts": lambda n: clip.encode_texts(TEXTS[:n]),
        "clip pictures": lambda n: clip.encode_pictures(PIXELS[:n]),
        "regions": lambda n: resnet.encode(PIXELS[:n], regions=True)["regions"],
        "pooled": lambda n: resnet.encode(PIXELS[:n])["pooled"],
    }


WAYS = ("text", "clip texts", "clip pictures", "regions", "pooled")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {
        "text": write_encoder(root / "text"),
        "clip": write_clip(root / "clip"),
        "resnet": write_checkpoint(root / "resnet", "resnet"),
    }


@pytest.fixture(scope="module")
def encoders(folders) -> dict[str, Encode]:
    return encode(folders)


@pytest.fixture(scope="module")
def rough(folders) -> dict[str, Encode]:
    return encode(folders, dtype="bfloat16")


@pytest.mark.parametrize("way", WAYS)
def test_bfloat16_is_near_and_comes_back_as_float32(encoders, rough, way):
    low, full = rough[way](4), encoders[way](4)
    assert low.dtype == full.dtype == np.float32
    assert_close(low, full, limit=BFLOAT16)
    assert np.abs(low - full).max() > 0


@pytest.mark.parametrize("way", WAYS)
def test_nothing_to_encode(encoders, way):
    assert encoders[way](0).shape == (0, *encoders[way](1).shape[1:])


def test_no_pooling_is_nothing(folders):
    assert TextEncoder(folders["text"]).encode(["a"], None, []) == {}


def test_half_a_character_is_no_crash(folders):
    texts = ["a \ud83d b", "a \ufffd b"]
    one, two = ClipEncoder(folders["clip"]).encode_texts(texts)
    assert_close(one, two)
    one, two = TextEncoder(folders["text"]).encode(texts, None, ["mean"])["mean"]
    assert_close(one, two)


def test_two_devices_give_what_one_gives(encoders, folders, tmp_path):
    out = tmp_path / "two.npz"
    root = str(folders["text"].parent)
    result = run("tests.support.encoding_on_devices", root, str(out), devices=2)
    assert result.returncode == 0, result.stderr
    with np.load(out) as two:
        for way in WAYS:
            assert_close(two[way], encoders[way](25), way)
