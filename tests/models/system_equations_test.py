"""The systems beside DRIN do what their equations say (MEL-HI and GHMFC also: parity_test)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipeline.schema import UserError
from drin_jax.models.jmel import JMEL
from drin_jax.models.mel_hi import MELHI
from drin_jax.models.recurrent import LSTM
from tests.support.random_graphs import R
from tests.support.random_sequences import (
    B,
    D,
    build,
    changed,
    outputs,
    scores,
    shared,
    some,
    whole,
)
from tests.support.tolerance import assert_close


def test_an_lstm_keeps_its_state_over_padding_and_starts_anew():
    lstm, rng = LSTM(3, 2, dtype=jnp.float32, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    nnx.update(lstm, jax.tree.map(lambda x: x + 0.1, nnx.state(lstm)))
    x = rng.standard_normal((2, 6, 3)).astype(np.float32)
    read = np.array([[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1]], bool)
    fresh = np.array([[0, 0, 0, 1, 0, 0], [0] * 6], bool)
    gates, masks = lstm.inputs(jnp.asarray(x)), (jnp.asarray(read), jnp.asarray(fresh))
    last, states = jax.jit(lstm)(gates, *masks)
    kernels = [np.asarray(layer.kernel[...]) for layer in (lstm.inputs, lstm.recurrent)]
    for i in range(2):
        h = c = np.zeros(2, np.float32)
        for j in range(6):
            h, c = (0 * h, 0 * c) if fresh[i, j] else (h, c)
            if read[i, j]:
                gates = x[i, j] @ kernels[0] + h @ kernels[1] + 0.2
                into, forget, _, out = np.split(1 / (1 + np.exp(-gates)), 4)
                c = forget * c + into * np.tanh(gates[4:6])
                h = out * np.tanh(c)
            assert_close(states[i, j], h)
        np.testing.assert_array_equal(last[i], states[i, -1])


def test_jmel_is_its_equation():
    batch, model = some(6), nnx.merge(*shared("jmel"))
    assert isinstance(model, JMEL)
    out = scores("jmel", batch)

    def joint(side: Any, text: Any, image: Any, has: Any) -> np.ndarray:
        parts = [np.tanh(side.text(text)), np.tanh(side.image(image))]
        joined = np.concatenate([part * here for part, here in zip(parts, has, strict=True)])
        vector = np.asarray(side.joint(joined))
        return vector / np.linalg.norm(vector)

    for i, j in np.ndindex(out.shape):
        has = [batch.mention_has_text[i], batch.mention_has_image[i]]
        mention = joint(model.mention, batch.mention_text[i], batch.mention_image[i], has)
        has = [batch.entity_has_text[i, j], batch.entity_has_image[i, j]]
        entity = joint(model.entity, batch.entity_text[i, j], batch.entity_image[i, j], has)
        seen = bool(batch.candidate_mask[i, j]) and any(has)
        assert out[i, j] == pytest.approx(mention @ entity if seen else 0.0, abs=1e-6)


def test_dzmned_attends_to_what_is_there_and_averages_two_cosines():
    batch = some(7)
    own = batch.needed("mention_characters").at[:, 0].set(5).at[4].set(0)
    batch = changed(batch, mention_characters=own)
    out, aux = outputs("dzmned", batch)
    has_tokens = batch.needed("mention_token_mask").any(1)
    there = np.stack([has_tokens, own[:, 0] > 0, batch.mention_has_image], 1)
    weights = aux["attention"]
    assert np.all((weights > 0) == there)
    assert_close(weights.sum(1), np.ones(len(weights)))
    # A sigmoid lies in (0, 1), so no modality has more than e times the weight of another.
    assert np.all(weights.max(1) < np.e * np.where(there, weights, 1).min(1))
    halves = [np.split(aux[side], [D], -1) for side in ("mention", "entity")]
    cosines = [np.einsum("bd,brd->br", m, e) for m, e in zip(*halves, strict=True)]
    named = batch.needed("entity_characters")[..., 0] > 0
    both = batch.candidate_mask & batch.entity_has_text & named
    usual = np.asarray(both) & np.all(there[:, :2], 1, keepdims=True)
    assert usual.sum() > 3
    assert_close(out[usual], (sum(cosines) / 2)[usual])
    # One encoder for both sides: the mention's own name is the nearest there is.
    same = changed(batch, entity_characters=jnp.repeat(own[:, None], R, 1))
    mention, entity = (outputs("dzmned", same)[1][side][..., D:] for side in ("mention", "entity"))
    nearest = np.repeat(there[:, 1:2], R, 1)
    assert_close(np.einsum("bd,brd->br", mention, entity), nearest)


def test_mel_hi_uses_pictures_only_beyond_both_thresholds():
    batch, model = whole(8), nnx.merge(*shared("mel_hi"))
    assert isinstance(model, MELHI)
    assert model.image is not None
    image = jnp.asarray(model.image(batch.mention_image))
    near = batch.entity_image.at[:, 1].set(batch.mention_image)
    far = -jnp.repeat(batch.mention_image[:, None], R, 1)
    for cls, entity_image, expected in (
        (image, near, True),
        (image, far, False),
        (-image, near, False),
    ):
        tokens = batch.needed("mention_tokens").at[:, 0].set(cls)
        sight = changed(batch, mention_tokens=tokens, entity_image=entity_image)
        out, aux = outputs("mel_hi", sight)
        assert np.all(aux["keeps_images"] == expected)
        blind = scores("mel_hi", changed(sight, mention_has_image=jnp.zeros(B, bool)))
        assert np.array_equal(out, blind) != expected


def test_ghmfc_without_a_picture_is_its_text():
    batch = some(9)
    gate = outputs("ghmfc", batch)[1]["gate"]
    has = np.stack([batch.needed("mention_token_mask").any(1), batch.mention_has_image], 1)
    assert not has.all()
    assert np.all((gate > 0)[has.any(1)] == has[has.any(1)])
    with pytest.raises(UserError, match=r"'ghmfc'.* no pictures; set encoders\.image"):
        build("ghmfc", v=0)
