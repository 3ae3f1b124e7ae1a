"""What the picture benchmark counts and prints."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import encode_image
from benchmarks.random_module import random_module
from data_pipeline.output import Progress
from drin_jax.encoders.frozen import Frozen
from drin_jax.encoders.resnet import ConvNorm


def small(name: str, dtype: str) -> Frozen:
    layer = random_module(lambda: ConvNorm(3, 8, 3, 2, jnp.float32, nnx.Rngs(0)))
    return Frozen(layer, dtype, lambda model, _, x: model(x.astype(jnp.float32)))


def test_operations_of_a_convolution():
    rows = np.zeros((2, 40, 40, 3), np.uint8)
    inside = 20 * 20 * 9 - 2 * 20 * 3 + 1  # kernel places, less those over the edge
    products = 2 * 2 * inside * 3 * 8
    norm = 2 * 20 * 20 * 8 * 3  # three a value
    counted = encode_image.operations(small("", "float32"), rows)
    assert products + norm <= counted <= products + norm + rows.size + 100  # casts, factors


@pytest.mark.parametrize("peers", [{}, {"channels first": 2.0, "channels last": 1.0}])
def test_rates_and_ratios_follow_from_the_seconds(monkeypatch, peers):
    seconds = {"ours": 0.5, "limit": 2e-6 * 64**3} | peers  # the product: 1 Mflop/s
    monkeypatch.setattr(encode_image, "ours", small)
    monkeypatch.setattr(encode_image, "theirs", lambda *_: dict.fromkeys(peers))
    monkeypatch.setattr(encode_image, "fastest", lambda *_: seconds)
    monkeypatch.setattr(encode_image, "SIZE", 64)
    args = argparse.Namespace(batch=2, dtype="float32", threads=1, repeats=1)
    row = encode_image.measure("ResNet-50", args, Progress("test", 2))
    batch = 2 * len(jax.local_devices())
    shape = (batch, encode_image.SIDE, encode_image.SIDE, 3)
    work = encode_image.operations(small("", "float32"), np.zeros(shape, np.uint8))
    assert row["ours_per_s"] == batch / 0.5
    assert row["ratio_torch"] == (1.0 / 0.5 if peers else None)  # the better of the two
    assert row["share_of_matmul"] == pytest.approx(work / 0.5 / 1e6)
    told = encode_image.report(row)
    assert f"ours {batch / 0.5:29.1f} pictures/s" in told
    assert ("ratio to the better one       2.00x" in told) == ("PyTorch" in told) == bool(peers)
