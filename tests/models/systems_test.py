"""The systems beside DRIN: what is missing or padded changes nothing, and they learn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from data_pipeline.schema import UserError, batch_shapes
from drin_jax import models
from drin_jax.models.ghmfc import heads_of
from drin_jax.types import GraphBatch
from tests.support.random_graphs import R, assert_same, random_graphs
from tests.support.random_sequences import (
    NEW,
    B,
    T,
    V,
    build,
    changed,
    forward,
    learner,
    scores,
    shared,
    some,
    unpadded,
    whole,
)
from tests.support.tolerance import assert_close

PAPER = {"t": 768, "v": 2048, "r": 100, "s": 128}


def mixed(kept: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(kept.reshape(*kept.shape, *[1] * (a.ndim - kept.ndim)), a, b)


@pytest.mark.parametrize("name", NEW)
def test_what_is_masked_or_padded_is_never_read(name):
    batch, junk = some(1), whole(2)
    candidate = batch.candidate_mask
    shown = {
        "mention_text": batch.mention_has_text,
        "mention_image": batch.mention_has_image,
        "mention_regions": batch.mention_has_image,
        "mention_tokens": batch.needed("mention_token_mask"),
        "entity_text": batch.entity_has_text & candidate,
        "entity_image": batch.entity_has_image & candidate,
        "entity_characters": candidate,
    }
    swapped = changed(
        batch, **{n: mixed(kept, batch.needed(n), junk.needed(n)) for n, kept in shown.items()}
    )
    expected = unpadded(name, batch)
    assert_close(scores(name, swapped), expected)
    assert np.all(expected[~np.asarray(candidate)] == 0)
    assert np.ptp(expected[0]) > 0.01


@pytest.mark.parametrize("name", NEW)
def test_candidates_have_no_order_and_graphs_do_not_meet(name):
    batch, order = some(3), np.random.default_rng(3).permutation(R)
    sides = ("text", "image", "has_text", "has_image", "characters")
    entities = {f"entity_{side}": getattr(batch, f"entity_{side}")[:, order] for side in sides}
    shuffled = changed(batch, candidate_mask=batch.candidate_mask[:, order], **entities)
    expected = scores(name, batch)
    assert_same(scores(name, shuffled), expected[:, order])
    alone = jax.tree.map(lambda x: jnp.concatenate([x[2:3], x[:-1]]), batch)
    assert_same(scores(name, alone)[:1], expected[2:3])


@pytest.mark.parametrize("name", NEW)
def test_gradients_are_finite_where_everything_is_missing(name):
    zeros = jax.tree.map(jnp.zeros_like, whole())
    flags = [n for n, (_, dtype) in batch_shapes(1, 1, 1, 1).items() if dtype == "bool"]
    present = changed(zeros, **{flag: jnp.ones_like(getattr(zeros, flag)) for flag in flags})
    flat = ravel_pytree(shared(name)[1])[0]
    for batch in (zeros, present):
        for leaf in jax.tree.leaves([learner(name)(x, batch) for x in (flat, 0 * flat)]):
            assert np.all(np.isfinite(leaf))
    assert np.all(scores(name, zeros) == 0)


@pytest.mark.parametrize("name", NEW)
def test_it_learns(name):
    batch = changed(whole(4), gold=jnp.arange(B) % R)
    params = ravel_pytree(shared(name)[1])[0]
    optimizer = optax.adam(0.01)
    state, losses = optimizer.init(params), []
    for _ in range(60):
        (loss, _), grads = learner(name)(params, batch)
        losses.append(loss)
        updates, state = optimizer.update(grads, state)
        params = params + updates
    assert loss.dtype == jnp.float32
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["jmel", "dzmned", "mel_hi"])
def test_a_store_without_pictures_will_do(name):
    assert "regions" not in models.needs(name, 0)
    batch = some(5)
    bare = changed(batch, mention_image=jnp.zeros((B, 0)), entity_image=jnp.zeros((B, R, 0)))
    expected = forward(*shared(name, v=0), bare)[0]
    blind = changed(
        bare,
        mention_has_image=~bare.mention_has_image,
        entity_has_image=~bare.entity_has_image,
    )
    assert_same(forward(*shared(name, v=0), blind)[0], expected)
    assert np.ptp(expected[0]) > 0.01


@pytest.mark.parametrize(("name", "parameters"), [
    ("bert", 2 * (768 * 768 + 768)),
    ("jmel", 2 * (768 * 768 + 2048 * 768 + 2 * 768 * 768 + 3 * 768)),
    ("dzmned", 6_348_835),
    ("mel_hi", 48_779_520),
    ("ghmfc", 47_373_058),
    ("drin", 7_875_072),
])  # fmt: skip
def test_paper_sizes(name, parameters):
    t, v, r, s = PAPER.values()
    shapes = batch_shapes(2, r, t, v, models.needs(name, v), s=s)
    batch = GraphBatch.from_host({n: jax.ShapeDtypeStruct(*shape) for n, shape in shapes.items()})
    model = nnx.eval_shape(
        lambda: models.build(name, t, v, width=768, dtype="bfloat16", rngs=nnx.Rngs(0))
    )
    graph, params = nnx.split(model, nnx.Param)
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == parameters
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    out, aux = jax.eval_shape(lambda p, b: nnx.merge(graph, p)(b), params, batch)
    assert (out.shape, out.dtype) == ((2, r), jnp.float32)
    assert aux["entity"].shape == (2, r, aux["mention"].shape[1])


def test_mel_hi_may_have_a_narrower_lstm():
    fields: dict[str, Any] = {"width": 768, "dtype": "float32", "recurrent_width": 256}
    model = nnx.eval_shape(lambda: models.build("mel_hi", 768, 2048, rngs=nnx.Rngs(0), **fields))
    lstm = 4 * 256 * (3 * 768 + 256 + 2)
    others = (2048 + 1) * 768 + (2 * 256 + 1) * 768 + (2 * 768 + 1) * 768
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in leaves) == lstm + others


def test_heads_divide_both_widths():
    assert heads_of(768, 2048) == 8
    assert heads_of(384, 2048) == 8
    assert heads_of(300, 2048) == 4
    assert heads_of(7, 12) == 1


def test_what_systems_need():
    needs = {name: models.needs(name, 2048) for name in models.MODELS}
    assert needs["drin"] == needs["bert"] == needs["jmel"] == ()
    assert needs["ghmfc"] == ("tokens", "regions")
    assert (needs["dzmned"], needs["mel_hi"]) == (("tokens", "characters"), ("tokens",))
    assert needs["relational"] == ("evidence",)
    assert models.needs("ghmfc", 0) == ("tokens",)
    with pytest.raises(ValueError, match=r"holds no mention_token.*; give its loader needs="):
        build("mel_hi")(random_graphs(b=B, t=T, v=V))
    known = "bert, drin, dzmned, ghmfc, jmel, mel_hi, relational"
    with pytest.raises(UserError, match=f"model.name is 'jmell'; known are {known}$"):
        models.needs("jmell", 0)
