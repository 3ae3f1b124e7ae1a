"""DRIN: both adjacencies agree, its masks hide, and it does what its equations say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipeline.schema import UserError, batch_shapes
from drin_jax import models
from drin_jax.models import gcn_block
from drin_jax.models.bert_matcher import BertMatcher
from drin_jax.models.drin import DRIN
from drin_jax.models.gcn import PaperLayer
from drin_jax.types import GraphBatch
from tests.support.random_graphs import (
    D,
    R,
    T,
    V,
    assert_same,
    holes,
    random_graphs,
    small,
    value_and_grad,
)
from tests.support.tolerance import assert_close

ALL = ("tt", "tv", "vt", "vv")
UPSTREAM = [
    {"layers": 1},
    {"layers": 3},
    {"layers": 2, "relations": ("tt",)},
    {"layers": 2, "relations": ("tt", "vv")},
    {"layers": 2, "relations": ("tv", "vt")},
    {"layers": 2, "relations": ("tv", "vt", "vv"), "dynamic": False},
    {"layers": 2, "relations": ("tt",), "pictures": True},
    {"layers": 2, "relations": ()},
]
PAPER = [
    {"form": "paper", "layers": 1},
    {"form": "paper", "layers": 3, "mention_rows": "sum", "edge_scale": "mean"},
    {"form": "paper", "layers": 2, "dynamic": False, "vertex_activation": "relu"},
    {"form": "paper", "layers": 2, "edge_activation": "tanh", "relations": ("tt", "tv", "vt")},
    {"form": "paper", "layers": 2, "edge_activation": "identity", "relations": ("tt",)},
]
FORMS = [{"layers": 2}, {"form": "paper", "layers": 2}]
EVERY = [*FORMS, {"layers": 2, "adjacency": "dense"}, {"form": "paper", "adjacency": "dense"}]


def changed(batch: GraphBatch, **arrays: jax.Array) -> GraphBatch:
    return batch.replace(**arrays)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fields", [*UPSTREAM, *PAPER], ids=str)
def test_block_equals_dense(fields):
    batch = holes(1)
    dense = value_and_grad(small(adjacency="dense", **fields), batch)
    assert_same(value_and_grad(small(adjacency="block", **fields), batch), dense)


@pytest.mark.parametrize("fields", UPSTREAM[1:6], ids=str)
def test_joined_projections_change_nothing(fields, monkeypatch):
    batch = holes(2)
    apart = value_and_grad(small(**fields), batch)
    monkeypatch.setattr(gcn_block, "joining_pays", lambda batch: True)
    assert_same(value_and_grad(small(**fields), batch), apart)


def test_projections_join_where_that_saves_work():
    def joined(form: str, r: int) -> set[bool]:
        shapes = batch_shapes(64, r, 768, 2048)
        batch = GraphBatch.from_host({n: jnp.zeros(*s) for n, s in shapes.items()})
        model = DRIN(768, 2048, width=1, form=form, rngs=nnx.Rngs(0))
        x = model.inputs(batch)
        entities = gcn_block.first_entities(model.layers[0], model.inputs, batch, x)
        return {isinstance(entity, gcn_block.Projected) for entity in entities}

    assert joined("upstream", 100) == {True}
    assert joined("upstream", 10) == {False}
    assert joined("paper", 100) == {False}


@pytest.mark.parametrize("fields", EVERY, ids=str)
@pytest.mark.parametrize("relations", [ALL, ("tt", "vt"), ("vv",)], ids=str)
def test_no_edge_where_an_end_is_missing(fields, relations):
    batch = holes(3)
    _, aux = small(relations=relations, **fields)(batch)
    exists = np.zeros((*batch.candidate_mask.shape, 4), bool)
    for i, j, relation in np.ndindex(exists.shape):
        mention = (batch.mention_has_text, batch.mention_has_image)[relation // 2][i]
        entity = (batch.entity_has_text, batch.entity_has_image)[relation % 2][i, j]
        exists[i, j, relation] = (
            ALL[relation] in relations and mention and entity and batch.candidate_mask[i, j]
        )
    edges = np.moveaxis(np.asarray(aux["edges"]), 2, -1)
    assert np.all(edges[:, ~exists] == 0)
    assert np.all(edges[:, exists] != 0)


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_padding_changes_no_score(fields):
    batch, junk = holes(4), random_graphs(5, r=3)
    padded = {
        name: jnp.concatenate([getattr(batch, name), getattr(junk, name)], -1 - (ndim == 3))
        for name, ndim in (
            ("entity_text", 3),
            ("entity_image", 3),
            ("edges", 2),
            ("entity_has_text", 2),
            ("entity_has_image", 2),
        )
    }
    padded["candidate_mask"] = jnp.pad(batch.candidate_mask, ((0, 0), (0, 3)))
    model = small(**fields)
    scores, _ = model(changed(batch, **padded))
    assert_same(scores[:, :R], model(batch)[0])
    assert np.all(scores[:, R:] == 0)


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_what_is_masked_is_never_read(fields):
    batch = holes(6)
    other = random_graphs(7)
    hidden = batch.candidate_mask[..., None]
    text, image = batch.entity_has_text[..., None] & hidden, batch.entity_has_image[..., None]
    swapped = changed(
        batch,
        entity_text=jnp.where(text, batch.entity_text, other.entity_text),
        entity_image=jnp.where(image & hidden, batch.entity_image, other.entity_image),
        mention_image=jnp.where(
            batch.mention_has_image[:, None], batch.mention_image, other.mention_image
        ),
    )
    model = small(**fields)
    assert_same(model(swapped)[0], model(batch)[0])


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_without_pictures_it_is_the_text_only_model(fields):
    batch = changed(
        holes(8),
        mention_has_image=jnp.zeros(4, bool),
        entity_has_image=jnp.zeros((4, R), bool),
    )
    model, text_only = small(**fields), small(v=0, **fields)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for name in ("mention_image", "entity_image"):
        del params["inputs"][name]
    state = nnx.state(text_only, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    nnx.update(text_only, state)
    without = changed(batch, mention_image=jnp.zeros((4, 0)), entity_image=jnp.zeros((4, R, 0)))
    assert_same(text_only(without)[0], model(batch)[0])


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_candidates_have_no_order(fields):
    batch, order = holes(9), np.random.default_rng(9).permutation(R)
    shuffled = {
        name: getattr(batch, name)[:, order]
        for name in (
            "entity_text",
            "entity_image",
            "entity_has_text",
            "entity_has_image",
            "candidate_mask",
        )
    }
    shuffled["edges"] = batch.edges[..., order]
    model = small(**fields)
    assert_same(model(changed(batch, **shuffled))[0], model(batch)[0][:, order])


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_graphs_of_a_batch_do_not_meet(fields):
    batch, model = holes(10), small(**fields)
    scores, _ = model(batch)
    alone = jax.tree.map(lambda x: x[2:3], batch)
    assert_same(model(alone)[0], scores[2:3])


@pytest.mark.parametrize("fields", EVERY, ids=str)
def test_zeros_and_empty_graphs_stay_finite(fields):
    zeros = jax.tree.map(jnp.zeros_like, random_graphs())  # no candidate, no text, nothing
    flags = [name for name, (_, dtype) in batch_shapes(1, 1, 1, 1).items() if dtype == "bool"]
    present = changed(zeros, **{name: jnp.ones_like(getattr(zeros, name)) for name in flags})
    empty = changed(holes(11), candidate_mask=holes(11).candidate_mask.at[0].set(False))
    plain = DRIN(T, V, width=D, rngs=nnx.Rngs(0), **fields)  # biases are zero: vectors stay zero
    for model in (plain, small(**fields)):
        for batch in (zeros, present, empty):
            everything = jax.tree.leaves(value_and_grad(model, batch))
            assert all(np.all(np.isfinite(x)) for x in everything)
    assert np.all(plain(zeros)[0] == 0)


@pytest.mark.parametrize("rows", ["mean", "sum"])
def test_paper_form_is_equations_12_and_13(rows):
    batch = random_graphs(12, padding=0.3)
    model = small(form="paper", layers=2, mention_rows=rows, edge_scale="none")
    _, aux = model(batch)
    mt, mv = model.inputs.mention_text, model.inputs.mention_image
    et, ev = model.inputs.entity_text, model.inputs.entity_image
    for i in range(4):
        h = np.concatenate(
            [
                mt(batch.mention_text[i])[None],
                mv(batch.mention_image[i])[None],
                et(batch.entity_text[i]),
                ev(batch.entity_image[i]),
            ]
        )
        a = np.zeros((2 + 2 * R, 2 + 2 * R), np.float32)
        real = np.asarray(batch.candidate_mask[i])
        a[:2, 2:] = (batch.edges[i] * real).reshape(2, 2 * R)
        a += a.T
        m = np.zeros_like(a)
        m[:2, 2:] = np.tile(real, (2, 2))
        m += m.T
        for layer in model.layers:
            assert isinstance(layer, PaperLayer)
            weight = np.ones((len(a), 1), np.float32)
            weight[:2] = 1 / real.sum() if rows == "mean" else 1
            h = (
                np.asarray(jax.nn.gelu(weight * a @ h @ layer.w_h.kernel[...], approximate=False))
                + h
            )
            p = h @ np.asarray(layer.w_a.kernel[...])
            a = (m * (np.asarray(jax.nn.sigmoid(p @ p.T)) + a)).astype(np.float32)
        assert_close(aux["mention"][i], h[0])
        assert_close(aux["entity"][i], h[2 : 2 + R])
        assert_close(aux["edges"][-1, i], a[:2, 2:].reshape(4, R))


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_static_edges_stay(fields):
    _, aux = small(dynamic=False, **fields)(holes(13))
    assert_same(aux["edges"][1:], jnp.broadcast_to(aux["edges"][0], aux["edges"][1:].shape), 0.0)


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_bfloat16_arithmetic_stays_near(fields):
    batch = holes(14)
    scores, aux = small(dtype=jnp.bfloat16, **fields)(batch)
    assert (scores.dtype, aux["edges"].dtype) == (jnp.float32, jnp.float32)
    assert aux["entity"].dtype == jnp.bfloat16
    assert_close(scores, small(**fields)(batch)[0], limit=0.05)


def test_bert_row_is_a_cosine_of_two_maps():
    batch = holes(15)
    model = BertMatcher(T, 0, width=D, dtype=jnp.float32, rngs=nnx.Rngs(0))
    scores, _ = model(batch)
    mention = np.asarray(batch.mention_text @ model.mention_text.kernel[...])
    entity = np.asarray(batch.entity_text @ model.entity_text.kernel[...])
    for i, j in np.ndindex(scores.shape):
        x, y = mention[i], entity[i, j]
        cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        present = batch.candidate_mask[i, j] and batch.entity_has_text[i, j]
        assert scores[i, j] == pytest.approx(cosine if present else 0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("form", "papper"), ("adjacency", "sparse"), ("edge_scale", 2), ("dtype", "int8")],
)
def test_unknown_choices_are_named(field, value):
    fields = {"dtype": "float32", "width": D, field: value}
    with pytest.raises(UserError, match=f"{field} is {value!r}; known are "):
        models.build("drin", T, V, rngs=nnx.Rngs(0), **fields)
    with pytest.raises(
        UserError, match=r"'drim'; known are bert, drin, dzmned, ghmfc, jmel, mel_hi, relational$"
    ):
        models.build("drim", T, V, dtype="float32", rngs=nnx.Rngs(0))
