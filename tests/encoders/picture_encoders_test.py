"""Texts and pictures to vectors: tokens, normalisation, batches, devices, folders."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipeline.schema import UserError
from drin_jax.encoders.clip import load_clip
from drin_jax.encoders.frozen import picture_batches
from drin_jax.encoders.picture_encoders import ClipEncoder, Normalisation, ResNetEncoder
from drin_jax.encoders.resnet import load_resnet
from tests.support.picture_checkpoints import (
    CLIP_PREPROCESSOR,
    END,
    RESNET_PREPROCESSOR,
    START,
    golden,
    weights,
    write_checkpoint,
    write_clip,
)
from tests.support.tolerance import assert_close


def draw(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipEncoder:
    return ClipEncoder(write_clip(tmp_path_factory.mktemp("clip") / "clip"), batch=16)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> ResNetEncoder:
    folder = write_checkpoint(tmp_path_factory.mktemp("resnet") / "resnet", "resnet")
    return ResNetEncoder(folder, batch=16)


def test_what_the_pipeline_asks_an_encoder(clip, resnet):
    assert (clip.width, clip.image_size, clip.max_length) == (12, 18, 20)
    assert clip.preprocessor == CLIP_PREPROCESSOR
    assert resnet.width == 20
    assert resnet.preprocessor == RESNET_PREPROCESSOR
    assert len({clip.fingerprint, resnet.fingerprint}) == 2


def letters(text: str) -> list[int]:
    """Ids of single letters: all but the last of a word without its end mark."""
    return [
        ord(c) - 97 + 26 * (i + 1 == len(word)) for word in text.split() for i, c in enumerate(word)
    ]


TEXTS = {
    "the cat": [START, 53, *letters("cat"), END],
    "": [START, END],
    "Ab  c": [START, *letters("ab c"), END],
    "abc " * 9: [START, *letters("abc " * 6), END],  # cut to 20 tokens, the end kept
}


def test_texts_by_hand(clip):
    model = load_clip(clip.folder)
    run = nnx.jit(lambda model, ids: model.encode_text(ids))
    texts = [*TEXTS, "the cat"]
    vectors = clip.encode_texts(texts)
    assert vectors.shape == (5, 12)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        ids = np.full((1, 24), END, np.int32)
        ids[0, : len(TEXTS[text])] = TEXTS[text]
        expected = run(model, jnp.asarray(ids[:, :20]))[0]
        assert_close(vector, expected, text)
    np.testing.assert_array_equal(vectors[0], vectors[4])
    assert clip.encode_texts([]).shape == (0, 12)


def test_pictures_are_normalised_as_the_preprocessor_says(clip, resnet):
    pixels = draw(5, 18)
    mean, std = (np.array(CLIP_PREPROCESSOR[key]) for key in ("image_mean", "image_std"))
    normal = jnp.asarray((pixels / 255 - mean) / std, jnp.float32)
    expected = nnx.jit(lambda model, x: model.encode_pixels(x))(load_clip(clip.folder), normal)
    assert_close(clip.encode_pictures(pixels), expected)

    pixels = draw(5, 23)
    mean, std = (np.array(RESNET_PREPROCESSOR[key]) for key in ("image_mean", "image_std"))
    normal = jnp.asarray((pixels / 255 - mean) / std, jnp.float32)
    regions, pooled = nnx.jit(lambda model, x: model(x))(load_resnet(resnet.folder), normal)
    out = resnet.encode(pixels, regions=True)
    assert_close(out["pooled"], pooled)
    assert_close(out["regions"], regions)
    assert_close(resnet.encode(pixels)["pooled"], pooled)


def test_normalisation_follows_its_switches():
    x = jnp.asarray([[[[0, 51, 255]]]], jnp.uint8)
    given = {"image_mean": [0.5, 0.1, 0], "image_std": [0.5, 0.1, 2], "rescale_factor": 1 / 255}
    for more, expected in [
        ({}, [-1, 1, 0.5]),
        ({"do_normalize": False}, [0, 0.2, 1]),
        ({"do_rescale": False}, [-1, 509, 127.5]),
        ({"do_rescale": False, "do_normalize": False}, [0, 51, 255]),
        ({"rescale_factor": 1 / 51}, [-1, 9, 2.5]),
    ]:
        ours = Normalisation.of(given | more, Path("x.json"))(x)
        assert_close(ours[0, 0, 0], expected)
    del given["rescale_factor"]  # the oldest files do not say it
    assert_close(Normalisation.of(given, Path("x.json"))(x)[0, 0, 0], [-1, 1, 0.5])


def test_batches_have_one_size_and_few_pictures_one_batch():
    def sizes(count: int, devices: int = 1) -> list[tuple[int, int]]:
        batches = picture_batches(draw(count, 2), 16, devices)
        return [(len(members), len(rows)) for members, rows in batches]

    assert sizes(35) == [(16, 16), (16, 16), (3, 16)]
    assert sizes(9) == [(9, 16)]
    assert sizes(3) == [(3, 4)]
    assert sizes(1, devices=8) == [(1, 8)]
    assert sizes(35, devices=2) == [(32, 32), (3, 32)]
    assert sizes(0) == []
    pixels = draw(20, 2)
    for members, rows in picture_batches(pixels, 16, 1):
        np.testing.assert_array_equal(rows[: len(members)], pixels[members])
        assert not rows[len(members) :].any()


def test_a_vector_does_not_depend_on_its_batch_and_nothing_compiles_twice(clip, resnet):
    pixels = draw(70, 18)
    whole = clip.encode_pictures(pixels)
    compiled = clip.compiled()
    assert_close(clip.encode_pictures(pixels[30:49]), whole[30:49])
    assert clip.compiled() == compiled
    assert_close(clip.encode_pictures(pixels[69:]), whole[69:])
    pixels = draw(70, 23)
    whole = resnet.encode(pixels, regions=True)
    compiled = resnet.compiled()
    part = resnet.encode(pixels[50:], regions=True)
    for name, values in part.items():
        assert_close(values, whole[name][50:])
    assert resnet.compiled() == compiled


def test_what_the_caller_gets_wrong(clip, resnet):
    for pixels, told in [
        (draw(2, 18).astype(np.float32), "float32 .* pass uint8"),
        (draw(2, 18)[0], "uint8 \\(18, 18, 3\\)"),
        (draw(2, 18)[..., :1], "uint8 \\(2, 18, 18, 1\\)"),
        (draw(2, 20), "20 x 20 pixels, the encoder takes 18 x 18"),
    ]:
        with pytest.raises(UserError, match=told):
            clip.encode_pictures(pixels)
    with pytest.raises(UserError, match="pass uint8"):
        resnet.encode(draw(2, 18)[0])
    with pytest.raises(UserError, match="dtype is 'float8'"):
        ClipEncoder(clip.folder, dtype="float8")
    with pytest.raises(UserError, match="batch is 0"):
        ResNetEncoder(resnet.folder, batch=0)


def test_the_newer_file_of_a_processor(tmp_path):
    folder = write_checkpoint(tmp_path / "resnet", "resnet")
    old = folder / "preprocessor_config.json"
    new = folder / "processor_config.json"
    before = ResNetEncoder(folder).fingerprint
    new.write_text(json.dumps({"image_processor": RESNET_PREPROCESSOR | {"rescale_factor": 0.5}}))
    encoder = ResNetEncoder(folder)
    assert encoder.preprocessor["rescale_factor"] == 0.5  # it goes first
    assert encoder.fingerprint != before
    new.write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert ResNetEncoder(folder).preprocessor == RESNET_PREPROCESSOR
    old.unlink()
    with pytest.raises(UserError, match=r"processor_config.json: has no image_processor"):
        ResNetEncoder(folder)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (None, "has no preprocessor_config.json or processor_config.json"),
        ("{", "preprocessor_config.json: unreadable"),
        ("{}", "preprocessor_config.json: image_mean is None, not three numbers"),
        ('{"image_mean": [1, 2, 3], "image_std": [1, 0, 1]}', "image_std is no scale"),
        ('{"image_mean": [1, 2, 3], "image_std": [1, "2", 1]}', "image_std is \\[1, '2', 1\\]"),
        ('{"do_normalize": false, "rescale_factor": "x"}', "rescale_factor"),
    ],
)
def test_a_preprocessor_that_is_refused(damage, told, tmp_path):
    folder = write_checkpoint(tmp_path / "resnet", "resnet")
    path = folder / "preprocessor_config.json"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(UserError, match=told) as caught:
        ResNetEncoder(folder)
    assert "\n" not in str(caught.value)


def test_folders_that_are_refused(clip, resnet, tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer\.json or vocab\.json"):
        ClipEncoder(write_checkpoint(tmp_path / "bare", "clip"))
    with pytest.raises(UserError, match="model_type is 'clip'; this encoder needs 'resnet'"):
        ResNetEncoder(clip.folder)
    grey = write_checkpoint(tmp_path / "grey", "resnet", num_channels=1)
    with pytest.raises(UserError, match=r"embedder.convolution.weight \(8, 3, 7, 7\)"):
        ResNetEncoder(grey)
    tensors = weights("resnet")
    stem = "resnet.embedder.embedder.convolution.weight"
    tensors[stem] = tensors[stem][:, :1]
    with pytest.raises(UserError, match="num_channels is 1; pass a checkpoint for colour"):
        ResNetEncoder(write_checkpoint(grey, "resnet", tensors, num_channels=1))
    text = json.loads(str(golden("clip")["config"]))["text_config"]
    for fields, told in [
        ({"eos_token_id": 9}, f"ends texts with token {END}, by its config.json .* token 9"),
        ({"vocab_size": 57}, "wrong shape: .*token_embedding.weight"),
    ]:
        folder = write_clip(tmp_path / "eos", text_config=text | fields)
        with pytest.raises(UserError, match=told) as caught:
            ClipEncoder(folder)
        assert "\n" not in str(caught.value)
    (folder / "model.safetensors").write_bytes(b"<html>" * 50)
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole"):
        ClipEncoder(folder)
