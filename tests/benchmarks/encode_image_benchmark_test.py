"""What the picture benchmark counts and prints."""

import argparse

import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks import encode_image
from benchmarks.random_module import random_module
from data_pipeline.progress import Progress
from drin_jax.encoders.frozen import Frozen
from drin_jax.encoders.resnet import ConvNorm


def small(name: str, dtype: str) -> Frozen:
    layer = random_module(lambda: ConvNorm(3, 8, 3, 2, jnp.float32, nnx.Rngs(0)))
    return Frozen(layer, dtype, lambda model, _, x: model(x.astype(jnp.float32)), None)


def test_operations_of_a_convolution():
    rows = np.zeros((2, 40, 40, 3), np.uint8)
    inside = 20 * 20 * 9 - 2 * 20 * 3 + 1  # kernel places, less those over the edge
    products = 2 * 2 * inside * 3 * 8
    norm = 2 * 20 * 20 * 8 * 3  # three a value
    counted = encode_image.operations(small("", "float32"), rows)
    assert products + norm <= counted <= products + norm + rows.size + 100  # casts, factors


def test_a_report_without_pytorch(monkeypatch):
    monkeypatch.setattr(encode_image, "ours", small)
    monkeypatch.setattr(encode_image, "theirs", lambda *_: {})
    monkeypatch.setattr(encode_image, "SIZE", 64)
    args = argparse.Namespace(batch=2, dtype="float32", threads=1, repeats=1)
    with Progress("test", 2) as bar:
        row = encode_image.measure("ResNet-50", args, bar)
    assert row["ours_per_s"] > 0
    assert row["share_of_matmul"] > 0
    assert row["ratio_torch"] is None
    told = encode_image.report(row)
    assert "pictures/s" in told
    assert "PyTorch" not in told
