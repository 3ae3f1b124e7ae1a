"""The system of relations of many values: what of it is DRIN, and what each part adds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipeline.schema import EVIDENCE, EVIDENCE_COLUMNS, OF_OWN_PICTURE, RELATIONS
from drin_jax.models.drin import DRIN
from drin_jax.models.relational import Relational
from drin_jax.types import GraphBatch
from tests.support.random_graphs import T, V, random_graphs
from tests.support.tolerance import assert_close

B = 16
KEYS = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(B))


def graphs(seed: int = 0, **more: Any) -> GraphBatch:
    lacking = {"padding": 0.2, "missing_image": 0.3, "missing_text": 0.1} | more
    batch = random_graphs(seed, b=B, **lacking)
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((*batch.candidate_mask.shape, len(EVIDENCE_COLUMNS)))
    kept = np.asarray(batch.candidate_mask)[..., None]
    return batch.replace(evidence=jnp.asarray(values * kept, jnp.float32))  # type: ignore[attr-defined]


def relational(**fields: Any) -> Relational:
    """With parameters of which none is where it begins."""
    model = Relational(T, V, **{"width": 8, "state": 5} | fields, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    params = nnx.state(model, nnx.Param)
    random = lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32)  # noqa: E731
    nnx.update(model, jax.tree.map(random, params))
    return model


@pytest.mark.parametrize("form", ["paper", "upstream"])
@pytest.mark.parametrize("v", [V, 0])
def test_it_begins_as_drin(form: str, v: int) -> None:
    """To the last bit, scores and all that they came from, whatever the evidence."""
    more = {"form": form, "width": 8}
    ours = Relational(T, v, **more, rngs=nnx.Rngs(0))
    theirs = DRIN(T, v, **more, rngs=nnx.Rngs(0))
    batch = graphs(v=v)
    (scores, aux), (wanted, of_drin) = ours(batch), theirs(batch)
    np.testing.assert_array_equal(scores, jnp.where(batch.candidate_mask, wanted, 0))
    jax.tree.map(np.testing.assert_array_equal, {name: aux[name] for name in of_drin}, of_drin)
    assert aux.keys() - of_drin.keys() == {"state", "evidence"}


def test_scores_without_vertices_are_the_equations() -> None:
    """The docstring's, plainly in numpy."""
    model, batch = relational(vertices=False, layers=2), graphs()
    value = lambda param: np.asarray(param[...], np.float64)  # noqa: E731

    def gelu(x: np.ndarray) -> np.ndarray:
        return np.asarray(jax.nn.gelu(x, approximate=False), np.float64)

    x = np.asarray(batch.needed("evidence"), np.float64)
    own = model.readings[0]
    a = gelu(x @ value(own.first.kernel) + value(own.first.bias))
    for update in own.updates:
        a = a + gelu(a @ value(update.kernel) + value(update.bias))
    s = (a @ value(own.of_state.kernel) + x @ value(own.of_evidence.kernel))[..., 0]
    assert_close(model(batch)[0], np.where(batch.candidate_mask, s, 0))


def test_the_state_is_part_of_every_layers_edges() -> None:
    """What V makes of the first state is added to the edges before the first layer."""
    model, batch = relational(layers=2), graphs(1)
    aux = model(batch)[1]
    assert model.graph is not None
    plain = model.graph(batch)[1]
    moved = np.abs(np.asarray(aux["edges"] - plain["edges"])).max((0, 1, 3))
    assert (moved > 1e-3).all()  # each of tt, tv, vt, vv
    there = np.asarray(plain["edges"][0] != 0)
    np.testing.assert_array_equal(np.asarray(aux["edges"][0] != 0) & ~there, False)


@pytest.mark.parametrize("relation", EVIDENCE)
def test_a_relation_that_is_off_is_not_read(relation: str) -> None:
    others = tuple(name for name in EVIDENCE if name != relation)
    model, batch = relational(relations=(*RELATIONS, *others)), graphs()
    own = np.array([name == relation for name in EVIDENCE_COLUMNS])
    changed = batch.replace(evidence=jnp.where(own, 7.0, batch.evidence))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(model(batch)[0], model(changed)[0])
    all_on = relational()
    assert np.abs(np.asarray(all_on(batch)[0] - all_on(changed)[0])).max() > 1e-3


def test_dropout_is_by_key_alone_and_off_without_one() -> None:
    model, batch = relational(dropout=0.5, drop_relations=0.3, drop_pictures=0.4), graphs()
    np.testing.assert_array_equal(model(batch)[0], model(batch)[0])
    first = model(batch, KEYS)[0]
    np.testing.assert_array_equal(first, model(batch, KEYS)[0])
    assert np.abs(np.asarray(first - model(batch)[0])).max() > 1e-3
    # A mention's own key decides, wherever in the batch it is.
    order = np.random.default_rng(0).permutation(B)
    moved = jax.tree.map(lambda table: table[order], batch)
    assert_close(model(moved, KEYS[order])[0], np.asarray(first)[order])


def test_a_dropped_relation_is_dropped_of_all_candidates() -> None:
    model, batch = relational(dropout=0.0, drop_relations=0.5), graphs(padding=0.0)
    seen = np.asarray(model(batch, KEYS)[1]["evidence"])
    column = np.array([[*EVIDENCE].index(name) for name in EVIDENCE_COLUMNS])
    shares = []
    for i in range(len(EVIDENCE)):
        own = seen[:, :, column == i] != 0
        per_mention = own.reshape(len(own), -1)
        held = np.asarray(batch.candidate_mask).any(1)
        shares.append(per_mention.any(1)[held].mean())
        for row, mask in zip(own, np.asarray(batch.candidate_mask), strict=True):
            assert len({bool(values.all()) for values in row[mask]}) <= 1
    assert 0.2 < np.mean(shares) < 0.8


def test_without_its_picture_it_scores_as_a_mention_that_has_none() -> None:
    """With `drop_pictures` some train so; those score to the last bit as if there were none."""
    model = relational(dropout=0.0, drop_pictures=0.5)
    batch = graphs(3)
    has_picture = jnp.ones(B, bool)
    values = [value for values in EVIDENCE.values() for value in values]
    pictures = np.array([value in OF_OWN_PICTURE for value in values])
    batch = batch.replace(mention_has_image=has_picture)  # type: ignore[attr-defined]
    blind = batch.replace(  # type: ignore[attr-defined]
        mention_has_image=~has_picture,
        evidence=jnp.where(pictures, 0, batch.evidence),
    )
    scores, seen, unseen = model(batch, KEYS)[0], model(batch)[0], model(blind)[0]
    as_seen = np.asarray((scores == seen).all(1))
    as_blind = np.asarray((scores == unseen).all(1))
    assert (as_seen | as_blind).all()
    assert as_blind.any()
    assert as_seen.any()


def test_evidence_of_the_wrong_width_is_told() -> None:
    batch = graphs()
    short = batch.replace(evidence=batch.evidence[..., :3])  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"3|incompatible"):
        relational()(short)


def test_nil_is_what_scores_are_held_against() -> None:
    """n is q.max_j a_j + n_0 over the candidates there are; without any, n_0."""
    model, batch = relational(nil=True), graphs()
    batch = batch.replace(candidate_mask=batch.candidate_mask.at[0].set(False))  # type: ignore[attr-defined]
    scores, aux = model(batch)
    own = model.readings[0]
    assert own.of_none is not None
    bias = float(own.of_none.bias[...][0])
    assert float(aux["nil"][0]) == pytest.approx(bias)
    for row in range(1, B):
        there = np.asarray(batch.candidate_mask[row])
        most = np.asarray(aux["state"])[row][there].max(0)
        none = most @ np.asarray(own.of_none.kernel[...])[:, 0] + bias
        assert float(aux["nil"][row]) == pytest.approx(none, abs=1e-4)
    own.of_none = None
    there = np.asarray(batch.candidate_mask)
    assert_close(scores, np.where(there, model(batch)[0] - aux["nil"][:, None], 0))


@pytest.mark.parametrize("vertices", [False, True])
def test_the_score_of_several_members_is_their_mean(vertices: bool) -> None:
    """Each as a model of its own, and so what they add to a graph's first edges."""
    model, batch = relational(members=3, vertices=vertices, nil=True), graphs()
    scores, aux = model(batch)
    own, readings = [], list(model.readings)
    for reading in readings:
        model.readings = nnx.List([reading])
        own.append(model(batch))
    assert np.abs(np.asarray(own[0][0] - own[1][0])).max() > 1e-2
    assert_close(aux["nil"], np.mean([more["nil"] for _, more in own], 0))
    if vertices:  # each one's score has a graph of its own here
        assert_close(aux["edges"][0], np.mean([more["edges"][0] for _, more in own], 0))
    else:
        assert_close(scores, np.mean([scores for scores, _ in own], 0))


def test_members_train_by_their_own_scores_and_dropout() -> None:
    model, batch = relational(members=3, dropout=0.5), graphs()
    assert "members" not in model(batch)[1]
    scores, aux = model(batch, KEYS)
    assert aux["members"].shape == (B, 3, batch.scored)
    assert_close(scores, aux["members"].mean(1))
    model.readings = nnx.List([model.readings[0]] * 2)
    first, second = np.asarray(model(batch, KEYS)[1]["members"]).swapaxes(0, 1)
    assert np.abs(first - second).max() > 1e-3
