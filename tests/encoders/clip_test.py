"""Our CLIP against transformers' PyTorch one, and what a checkpoint folder may get wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.random_module import random_module
from data_pipeline.schema import UserError
from drin_jax.encoders.clip import Clip, ClipConfig, TextConfig, VisionConfig, load_clip
from tests.golden.make_sample.saved_encoders import save_clip
from tests.support.picture_checkpoints import END, golden, weights, write_checkpoint
from tests.support.tolerance import assert_close

SMALL = ClipConfig(
    TextConfig(16, 24, 1, 2, vocab_size=30, max_position_embeddings=12, eos_token_id=29),
    VisionConfig(16, 24, 1, 2, image_size=12, patch_size=4),
    projection_dim=8,
)
NO_TORCH = "PyTorch is the reference; test_golden_* hold the encoder to it without"


@pytest.fixture(scope="module")
def model() -> Clip:
    return random_module(lambda: Clip(SMALL, rngs=nnx.Rngs(0)))


encode_text = nnx.jit(lambda model, ids: model.encode_text(ids))
encode_pixels = nnx.jit(lambda model, pixels: model.encode_pixels(pixels))


def test_golden_hidden_states_and_embeddings(tmp_path):
    arrays = golden("clip")
    model = load_clip(write_checkpoint(tmp_path / "clip", "clip"))
    ids, pixels = jnp.asarray(arrays["ids"]), jnp.asarray(arrays["pixels"])
    assert np.abs(arrays["picture_embedding"]).max() > 1
    text = nnx.jit(lambda model, x: (model.text(x)[0], model.encode_text(x)))(model, ids)
    picture = nnx.jit(lambda model, x: (model.vision(x)[0], model.encode_pixels(x)))(model, pixels)
    for name, (hidden, embedding) in {"text": text, "picture": picture}.items():
        assert_close(hidden, arrays[f"{name}_hidden"])
        assert_close(embedding, arrays[f"{name}_embedding"])


LIVE = {
    # the end token by its own number, with a padding that has a higher one; another activation
    "eos_gelu": {
        "text": {"vocab_size": 60, "eos_token_id": 31, "hidden_act": "gelu", "hidden_size": 24}
        | {"num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 40},
        "vision": {"image_size": 37, "patch_size": 7, "hidden_act": "gelu_new", "hidden_size": 32}
        | {"num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 20},
        "projection_dim": 20,
    },
    # the end token as the highest number
    "legacy": {
        "text": {"vocab_size": 40, "eos_token_id": 2, "hidden_size": 16, "layer_norm_eps": 1e-3}
        | {"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 40},
        "vision": {"image_size": 32, "patch_size": 16, "hidden_size": 24, "layer_norm_eps": 1e-3}
        | {"num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 20},
        "projection_dim": 12,
    },
    # Every width of the published model; ten more layers of the same prove nothing.
    "ViT-B/32": {name: {"num_hidden_layers": 2} for name in ("text", "vision")},
}


@pytest.mark.parametrize("name", LIVE)
def test_live_pytorch(name):
    pytest.importorskip("torch", reason=NO_TORCH)
    from benchmarks.encoder_parity import compare_clip

    for what, (ours, theirs) in compare_clip(LIVE[name], pictures=1, texts=3, tokens=21).items():
        assert np.abs(theirs).max() > 1, what
        assert_close(ours, theirs, what)


def test_what_follows_the_end_of_a_text_counts_for_nothing(model):
    ids = np.array([[3, 5, 8, 29, 0, 7, 29], [29, 4, 4, 4, 4, 4, 4]], np.int32)
    whole = encode_text(model, jnp.asarray(ids))
    for row, end in ((0, 4), (1, 1)):
        alone = encode_text(model, jnp.asarray(ids[row : row + 1, :end]))
        assert_close(alone[0], whole[row])


def test_one_token_alone_is_that_token_of_all(model):
    ids = jnp.asarray([[3, 5, 8, 29, 29], [1, 29, 2, 29, 9]])
    text = nnx.jit(lambda model, x, only: model.text(x, pooled_only=only), static_argnums=2)
    vision = nnx.jit(lambda model, x, only: model.vision(x, pooled_only=only), static_argnums=2)
    hidden, pooled = text(model, ids, False)
    assert_close(pooled, np.asarray(hidden)[[0, 1], [3, 1]])
    assert_close(text(model, ids, True)[1], pooled)
    pixels = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 12, 3)), jnp.float32)
    pooled, only = (vision(model, pixels, flag)[1] for flag in (False, True))
    assert_close(only, pooled)


def test_every_weight_learns_and_a_saved_model_comes_back(model, tmp_path):
    ids = jnp.asarray(np.array([[*range(11), 29], [*range(20, 29), 29, 29, 29]], np.int32))
    pixels = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 12, 3)), jnp.float32)

    def loss(model: Clip) -> jax.Array:
        return (model.encode_text(ids) * model.encode_pixels(pixels)).sum()

    for path, gradient in jax.tree_util.tree_leaves_with_path(nnx.jit(nnx.grad(loss))(model)):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    save_clip(model, tmp_path / "clip")
    assert ClipConfig.from_folder(tmp_path / "clip") == SMALL
    back = load_clip(tmp_path / "clip")
    np.testing.assert_array_equal(encode_text(back, ids), encode_text(model, ids))
    np.testing.assert_array_equal(encode_pixels(back, pixels), encode_pixels(model, pixels))


def test_transformers_reads_what_we_save(model, tmp_path):
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    import transformers

    save_clip(model, tmp_path)
    theirs, told = transformers.CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    ids = torch.tensor([[4, 9, 2, 29]])
    assert_close(
        theirs.eval().get_text_features(ids).pooler_output.detach(),
        encode_text(model, jnp.asarray(ids.numpy())),
    )


def test_bfloat16_is_near_float32_and_keeps_norms_in_float32(tmp_path):
    folder = write_checkpoint(tmp_path / "clip", "clip")
    pixels = jnp.asarray(golden("clip")["pixels"])
    low = load_clip(folder, "bfloat16")
    assert low.vision.layers[0].qkv.kernel[...].dtype == jnp.bfloat16
    assert low.vision.norm.scale[...].dtype == jnp.float32
    rough = encode_pixels(low, pixels)
    assert rough.dtype == jnp.bfloat16
    error = np.abs(np.asarray(rough, np.float32) - golden("clip")["picture_embedding"])
    assert 0 < error.max() < 0.1  # embeddings reach about 2; bfloat16 keeps 8 bits


def test_buffers_and_temperature_are_no_weights(tmp_path):
    tensors = weights("clip") | {
        "text_model.embeddings.position_ids": np.arange(20)[None],
        "vision_model.embeddings.position_ids": np.arange(10)[None],
    }
    assert "logit_scale" in tensors
    load_clip(write_checkpoint(tmp_path / "clip", "clip", tensors))
    tensors["text_model.odd"] = np.zeros(3, np.float32)
    del tensors["visual_projection.weight"]
    tensors["vision_model.embeddings.patch_embedding.weight"] = np.zeros((8, 3, 4, 5), np.float32)
    with pytest.raises(UserError) as caught:
        load_clip(write_checkpoint(tmp_path / "clip", "clip", tensors))
    told = str(caught.value)
    assert "missing: visual_projection.weight" in told
    assert "unexpected: text_model.odd" in told
    assert "patch_embedding.weight (8, 3, 4, 5), not (8, 3, 5, 5)" in told
    assert "\n" not in told


def test_config_defaults_and_what_old_checkpoints_repeat(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "clip", "text_config": None, "projection_dim": 512}))
    config = ClipConfig.from_folder(tmp_path)
    assert config == ClipConfig()
    assert (config.text.eos_token_id, config.vision.patch_size) == (49407, 32)
    old = {"text_config": {"hidden_size": 7}, "text_config_dict": {"hidden_size": 768}}
    path.write_text(json.dumps({"model_type": "clip", "vision_config_dict": None} | old))
    assert ClipConfig.from_folder(tmp_path).text.hidden_size == 768


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "siglip"}, "model_type is 'siglip'"),
        ({"text_config": [1]}, "text_config holds no JSON object"),
        ({"text_config": {"hidden_act": "mish"}}, "text_config: hidden_act 'mish'"),
        ({"vision_config": {"num_attention_heads": 5}}, "vision_config: hidden_size 768 is not a"),
        ({"vision_config": {"image_size": [18, 18]}}, "image_size is \\[18, 18\\]"),
        ({"vision_config": {"patch_size": 300}}, "patch_size 300 is more than image_size 224"),
        ({"projection_dim": 0}, "projection_dim is 0"),
        ({"projection_dim": 13}, "wrong shape: .*_projection.weight"),
    ],
)
def test_config_that_is_refused(config, told, tmp_path):
    with pytest.raises(UserError, match=told) as caught:
        load_clip(write_checkpoint(tmp_path / "clip", "clip", **config))
    assert "\n" not in str(caught.value)


def test_the_fixture_ends_texts_as_its_tokenizer_does():
    assert golden("clip")["ids"].max() == END
