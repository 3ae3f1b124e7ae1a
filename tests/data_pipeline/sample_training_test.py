"""The training of the sample's ResNet and CLIP: its losses, its lessons, what it writes.

The committed weights themselves are tested in sample_test.py.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import nnx

from data_pipeline.pictures import images
from data_pipeline.sample import lexicon as words
from data_pipeline.sample import tiny_bert, world
from data_pipeline.schema import UserError
from drin_jax.encoders.clip import load_clip
from drin_jax.encoders.hf import load_tokenizer
from drin_jax.encoders.picture_encoders import ClipEncoder, ResNetEncoder
from tests.golden.make_sample import byte_pairs, training
from tests.golden.make_sample import lessons as lesson_maker
from tests.golden.make_sample.lessons import CONCEPTS, FACETS, UNTOLD, Captions, Lessons
from tests.support.tolerance import assert_close


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return lesson_maker.make(5, 300)


def test_cosine_loss_weighs_pairs_with_and_without_something_in_common_alike() -> None:
    x = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    y = jnp.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    assert_close(training.cosines(x, y), [[1, 0.6, 0], [0, 0.8, 0]])
    target = jnp.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    near, far = (0 + 0.1**2) / 2, 0.8**2 / 4
    assert float(training.cosine_loss(x, y, target)) == pytest.approx(near + far, rel=1e-5)
    assert float(training.cosine_loss(x, y, jnp.zeros((2, 3)))) == pytest.approx(2.0 / 6)


def test_facet_loss_counts_only_what_is_told() -> None:
    heads = {"shape": jnp.eye(2), "field": jnp.eye(2)}
    features = jnp.array([[np.log(3.0), 0.0], [0.0, 0.0]])
    labels = {"shape": jnp.array([0, UNTOLD]), "field": jnp.array([1, 0])}
    by_hand = (np.log(4 / 3) + (np.log(4) + np.log(2)) / 2) / 2
    assert float(training.facet_loss(heads, features, labels)) == pytest.approx(by_hand, rel=1e-5)
    silent = {name: jnp.array([UNTOLD, UNTOLD]) for name in heads}
    assert float(training.facet_loss(heads, features, silent)) == 0


def test_what_two_pictures_have_in_common() -> None:
    """Banners by field and charge colour, an emblem by its colour, a scene by itself."""
    kinds, colours = FACETS["kind"], FACETS["colour"]
    labels = {
        "kind": jnp.array([kinds.index(k) for k in ("banner", "banner", "emblem", "sea")]),
        "field": jnp.array([0, 0, UNTOLD, UNTOLD]),
        "colour": jnp.array([1, 2, 1, UNTOLD]),
    }
    hot = training.hot(labels, ("kind", "field", "colour"))
    assert hot.shape == (4, len(kinds) + 2 * len(colours))
    half = 0.5**0.5
    shared = [[1, 0.5, half, 0], [0.5, 1, 0, 0], [half, 0, 1, 0], [0, 0, 0, 1]]
    assert_close(training.cosines(hot, hot), shared)


def test_lessons_know_what_is_on_a_picture(lessons: Lessons) -> None:
    kinds = np.array(FACETS["kind"])[lessons.facets["kind"]]
    assert set(kinds) == set(FACETS["kind"])
    for name in ("field", "pattern"):
        np.testing.assert_array_equal(lessons.facets[name] != UNTOLD, kinds == "banner")
    charged = np.isin(kinds, ("banner", "emblem"))
    np.testing.assert_array_equal(lessons.facets["shape"] != UNTOLD, charged)
    np.testing.assert_array_equal(lessons.crop_of, np.flatnonzero(charged))
    counts = np.select([kinds == "banner", kinds == "neutral"], [2, 0], 1)
    np.testing.assert_array_equal(lessons.concepts.sum(1), counts)
    # The middle of the region of a disc, and the rim of a plain banner, have the colours told.
    rgb = np.array(list(words.COLOURS.values()))
    discs = lessons.facets["shape"][lessons.crop_of] == words.SHAPES.index("disc")
    middle = lessons.crops[discs][:, 26:38, 26:38].mean((1, 2))
    nearest = np.linalg.norm(middle[:, None] - rgb, axis=-1).argmin(1)
    np.testing.assert_array_equal(nearest, lessons.facets["colour"][lessons.crop_of[discs]])
    assert lessons.crops.shape[1:] == images.plain(64)(images.Image.new("RGB", (9, 9))).shape


def test_captions_name_their_concepts_and_no_other(lessons: Lessons) -> None:
    texts, named = Captions().write(lessons.concepts, np.random.default_rng(0))
    assert not (named & ~lessons.concepts).any()
    assert 0 < (named.sum(1) == 0).mean() < 0.6
    says = {scene: set(plain) for scene, (plain, _) in words.SCENES.items()}
    says |= {shape: {shape} for shape in words.SHAPES}
    says |= {pattern: {word} for pattern, word in words.PATTERNS.items()}
    for text, row in zip(texts, named, strict=True):
        used = set(text.split())
        assert [bool(used & says[concept]) for concept in CONCEPTS] == row.tolist()
        assert not used & byte_pairs.spelled_out()


def test_the_tokenizer_knows_whole_words_and_spells_the_rest(tmp_path: Path) -> None:
    size = byte_pairs.write(tmp_path)
    tokenizer = load_tokenizer(tmp_path, size)
    whole = sorted(tiny_bert.known_words() - byte_pairs.spelled_out())
    assert {len(tokenizer.tokenize(word)) for word in whole} == {1}
    spelled = [len(tokenizer.tokenize(word)) for word in byte_pairs.spelled_out()]
    assert min(spelled) > 1
    for text in ("Gules, on AZURE!", "émigré 7", "蜂"):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"][1:-1]
    assert tokenizer("sea")["input_ids"][-1] == tokenizer.eos_token_id == size - 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same two models, with less of everything."""
    fields: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    for name, value in {
        "RESNET": dataclasses.replace(
            training.RESNET, embedding_size=4, hidden_sizes=(4, 16), depths=(1, 1)
        ),
        "TEXT": dataclasses.replace(training.TEXT, **fields),
        "VISION": dataclasses.replace(training.VISION, **fields),
        "BATCH": 8,
    }.items():
        monkeypatch.setattr(training, name, value)


def test_it_writes_two_folders_that_the_encoders_read(
    small: None, lessons: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one look at each loss in the place of the training, whose gradients take a minute to
    compile; `fit` has its own test."""
    steps = []

    def fit(model: Any, extra: Any, loss: Any, batches: Any, n: int, *_: Any) -> Any:
        batch = jax.tree.map(jnp.asarray, next(batches))
        assert np.isfinite(loss(model, extra, batch))
        steps.append(n)
        model.eval()
        return model

    monkeypatch.setattr(training, "fit", fit)
    training.write(lessons, tmp_path, steps=4, seed=5)
    assert steps == [2, 4]
    resnet, clip = ResNetEncoder(tmp_path / "resnet"), ClipEncoder(tmp_path / "clip")
    for folder, encoder in (("resnet", resnet), ("clip", clip)):
        recipe = images.processor(encoder.preprocessor, folder)
        assert recipe.scaled(64, 64) == (64, 64) == (recipe.width, recipe.height)
        weights = json.loads((tmp_path / folder / "config.json").read_text())
        assert weights["model_type"] == folder
    # The encoders see pixels as training did.
    pixels = lessons.pixels[:4]
    model = load_clip(tmp_path / "clip")
    assert_close(
        clip.encode_pictures(pixels),
        model.encode_pixels(training.normalise(jnp.asarray(pixels))),
    )
    assert clip.encode_texts(["a sea", "a star"]).shape == (2, training.VECTOR)


def test_training_lowers_the_loss_it_is_given(lessons: Lessons) -> None:
    def loss(model: nnx.Linear, extra: jax.Array, batch: dict[str, Any]) -> jax.Array:
        return jnp.square(model(batch["x"]) * extra - 6.0).mean()

    def batches():
        while True:
            yield {"x": np.ones((4, 1), np.float32)}

    start = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    fitted = training.fit(start, jnp.ones(()), loss, batches(), 60, "fitting", 0.1)
    before = float(loss(start, jnp.ones(()), next(batches())))
    assert float(loss(fitted, jnp.ones(()), next(batches()))) < before / 2


@pytest.mark.parametrize(
    ("values", "told"), [({}, "--out"), ({"out": "x", "seed": world.SEED}, "the world's own")]
)
def test_a_missing_folder_and_the_worlds_own_seed_are_refused(
    values: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags.FLAGS.mark_as_parsed()
    for name, value in values.items():
        monkeypatch.setattr(flags.FLAGS[name], "value", value)
    with pytest.raises(UserError, match=told):
        training.main()
