"""Our ResNet against transformers' PyTorch one, and what a checkpoint folder may get wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.random_module import random_module
from data_pipeline.schema import UserError
from drin_jax.encoders.resnet import (
    ResNet,
    ResNetConfig,
    convolve,
    load_resnet,
    max_pool,
)
from tests.golden.make_sample.saved_encoders import save_resnet
from tests.support.picture_checkpoints import golden, weights, write_checkpoint
from tests.support.tolerance import assert_close

SMALL = ResNetConfig(
    embedding_size=4, hidden_sizes=(8, 12), depths=(1, 2), layer_type="basic", hidden_act="silu"
)
NO_TORCH = "PyTorch is the reference; test_golden_* hold the encoder to it without"


@pytest.fixture
def model() -> ResNet:
    return random_module(lambda: ResNet(SMALL, rngs=nnx.Rngs(0)))


run = nnx.jit(lambda model, pixels: model(pixels))


def test_golden_regions_and_pooled(tmp_path):
    arrays = golden("resnet")  # with a classifier on top, "resnet." before the encoder's names
    assert np.abs(arrays["regions"]).max() > 1
    model = load_resnet(write_checkpoint(tmp_path / "resnet", "resnet"))
    regions, pooled = run(model, jnp.asarray(arrays["pixels"]))
    assert_close(regions, arrays["regions"])
    assert_close(pooled, arrays["pooled"])


TINY = {"embedding_size": 8, "hidden_sizes": [16, 24, 32], "depths": [1, 2, 1]}
LIVE = {
    "basic": (TINY | {"layer_type": "basic", "hidden_act": "gelu"}, 64),
    "basic, first stage downsamples": (
        TINY | {"layer_type": "basic", "downsample_in_first_stage": True},
        70,
    ),
    "bottleneck": (TINY, 51),
    "bottleneck downsamples early": (TINY | {"downsample_in_bottleneck": True}, 96),
    "ResNet-50, a block a stage": ({"depths": [1, 1, 1, 1]}, 224),
}


@pytest.mark.parametrize("name", LIVE)
def test_live_pytorch(name):
    pytest.importorskip("torch", reason=NO_TORCH)
    from benchmarks.encoder_parity import compare_resnet

    shape, side = LIVE[name]
    pairs = compare_resnet(shape, pictures=1, side=side)
    for what, (ours, theirs) in pairs.items():
        assert np.abs(theirs).max() > 0.5, what
        assert_close(ours, theirs, what)


def test_regions_are_row_by_row_and_pooled_is_their_mean(model):
    pixels = np.random.default_rng(0).normal(size=(1, 96, 32, 3)).astype(np.float32)
    regions, pooled = map(np.asarray, run(model, jnp.asarray(pixels)))
    assert regions.shape == (1, 12 * 4, 12)
    assert_close(pooled, regions.mean(1))
    # A change at the upper right corner is seen at the end of the first row, not at its start.
    pixels[0, 0, 31] += 3
    changed, _ = run(model, jnp.asarray(pixels))
    moved = np.abs(changed - regions).max(-1)[0].reshape(12, 4)
    assert moved[0, 3] > 1e-3
    assert moved[11, 0] == moved[8, 3] == 0


@pytest.mark.parametrize("side", [5, 8, 13])
def test_max_pool_against_every_window(side):
    x = np.random.default_rng(side).normal(-5, 1, (2, side, side + 1, 3)).astype(np.float32)
    ours = np.asarray(jax.jit(max_pool)(jnp.asarray(x)))
    assert ours.shape == (2, (side + 1) // 2, side // 2 + 1, 3)
    for i in range(ours.shape[1]):
        for j in range(ours.shape[2]):
            window = x[:, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2]
            np.testing.assert_array_equal(ours[:, i, j], window.max((1, 2)))


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 2), (7, 2)])
def test_convolution_by_hand(size, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape) for shape in ((1, 9, 10, 2), (size, size, 2, 3)))
    given = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    ours = np.asarray(jax.jit(convolve, static_argnums=2)(*given, stride))
    padded = np.pad(x[0], [(size // 2,) * 2] * 2 + [(0, 0)])
    assert ours.shape == (1, 8 // stride + 1, 9 // stride + 1, 3)
    for i, j in ((0, 0), (1, 2), (ours.shape[1] - 1, ours.shape[2] - 1)):
        patch = padded[i * stride : i * stride + size, j * stride : j * stride + size]
        assert_close(ours[0, i, j], np.tensordot(patch, kernel, 3))


def test_every_weight_learns_and_a_saved_model_comes_back(model, tmp_path):
    pixels = jnp.asarray(np.random.default_rng(1).normal(size=(2, 40, 40, 3)), jnp.float32)
    gradients = nnx.jit(nnx.grad(lambda model: (model(pixels)[1] ** 2).sum()))(model)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    before = np.asarray(model.stem.norm.mean[...])
    frozen = run(model, pixels)[1]
    model.train()
    assert np.abs(run(model, pixels)[1] - frozen).max() > 1e-3  # the batch's own statistics
    model.eval()
    assert np.abs(model.stem.norm.mean[...] - before).max() > 1e-4  # and they were noted
    save_resnet(model, tmp_path / "resnet")
    assert ResNetConfig.from_folder(tmp_path / "resnet") == SMALL
    back = load_resnet(tmp_path / "resnet")
    np.testing.assert_array_equal(run(back, pixels)[1], run(model, pixels)[1])


def test_transformers_reads_what_we_save(model, tmp_path):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    import transformers

    from benchmarks.torch_encoders import channels_first

    save_resnet(model, tmp_path)
    theirs, told = transformers.ResNetModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    pixels = np.random.default_rng(0).normal(size=(1, 40, 40, 3)).astype(np.float32)
    with torch.no_grad():
        pooled = theirs.eval()(channels_first(pixels)).pooler_output.flatten(1)
    assert_close(run(model, jnp.asarray(pixels))[1], pooled)


def test_bfloat16_is_near_float32(tmp_path):
    arrays = golden("resnet")
    model = load_resnet(write_checkpoint(tmp_path / "resnet", "resnet"), "bfloat16")
    assert model.stem.kernel[...].dtype == jnp.bfloat16
    assert model.stem.norm.var[...].dtype == jnp.float32
    _, pooled = run(model, jnp.asarray(arrays["pixels"]))
    assert pooled.dtype == jnp.float32
    error = np.abs(pooled - arrays["pooled"]).max() / np.abs(arrays["pooled"]).max()
    assert 0 < error < 0.02


def test_weights_that_do_not_fit_are_listed(tmp_path):
    tensors = weights("resnet")
    assert "classifier.1.weight" in tensors
    assert any(name.endswith("num_batches_tracked") for name in tensors)
    block = "resnet.encoder.stages.1.layers.1.layer"
    del tensors[f"{block}.2.normalization.running_var"]
    tensors[f"{block}.1.convolution.weight"] = np.zeros((5, 5, 1, 3), np.float32)
    tensors[f"{block}.3.convolution.weight"] = np.zeros((5, 5, 1, 1), np.float32)
    with pytest.raises(UserError) as caught:
        load_resnet(write_checkpoint(tmp_path / "resnet", "resnet", tensors))
    told, block = str(caught.value), block.removeprefix("resnet.")
    assert f"missing: {block}.2.normalization.running_var" in told
    assert f"unexpected: {block}.3.convolution.weight" in told
    assert f"{block}.1.convolution.weight (5, 5, 1, 3), not (5, 5, 3, 3)" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "convnext"}, "model_type is 'convnext'"),
        ({"layer_type": "wide"}, "layer_type 'wide' is not supported"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"depths": [1]}, "1 depths and 2 hidden_sizes"),
        ({"depths": [1, 0]}, r"depths is \(1, 0\)"),
        ({"downsample_in_bottleneck": "yes"}, "downsample_in_bottleneck is 'yes'"),
        ({"depths": [1, 1]}, "unexpected: encoder.stages.1.layers.1"),
    ],
)
def test_config_that_is_refused(config, told, tmp_path):
    with pytest.raises(UserError, match=told) as caught:
        load_resnet(write_checkpoint(tmp_path / "resnet", "resnet", **config))
    assert "\n" not in str(caught.value)
