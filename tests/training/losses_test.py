"""Each loss against arithmetic written out by hand, and its gathered form on eight devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.schema import UserError
from drin_jax.training.losses import FORMS, margin_loss
from drin_jax.types import GraphBatch
from tests.support.commands import run
from tests.support.random_graphs import random_graphs

MARGIN = 0.25


def batch_of(candidates: list[list[int]], gold: list[int], mask: list[int]) -> GraphBatch:
    b, r = np.shape(candidates)
    return random_graphs(b=b, r=r, t=1, v=1).replace(  # type: ignore[attr-defined]
        candidate_mask=jnp.asarray(candidates, bool),
        gold=jnp.asarray(gold, jnp.int32),
        mask=jnp.asarray(mask, bool),
    )


def loss(form: str, scores: Any, batch: GraphBatch, aux: dict | None = None) -> float:
    return float(margin_loss(jnp.asarray(scores), aux or {}, batch, form=form, margin=MARGIN))


# Two mentions and a padding row of the batch; the first mention has two candidates, one slot empty.
SCORES = [[0.5, 0.4, 9.0], [0.2, 0.3, -0.6], [7.0, 7.0, 7.0]]
BATCH = batch_of([[1, 1, 0], [1, 1, 1], [1, 1, 1]], gold=[0, 1, 0], mask=[1, 1, 0])


def test_upstream_holds_every_positive_against_every_similarity():
    # Similarities: 0.5 0.4 | 0.2 0.3 -0.6. Positives: 0.5 and 0.3.
    first = 0.25 + 0.15 + 0.0 + 0.05 + 0.0
    second = (0.45 + 0.35) + (0.15 + 0.25 + 0.0)
    assert loss("upstream", SCORES, BATCH) == pytest.approx((first + second) / 10)


def test_upstream_without_gold_has_positive_zero():
    batch = batch_of([[1, 1]], gold=[-1], mask=[1])
    assert loss("upstream", [[0.1, -0.5]], batch) == pytest.approx((0.35 + 0.0) / 2)


def test_hinge_is_the_mean_over_own_negatives():
    first = 0.4 - 0.5 + 0.25
    second = ((0.2 - 0.3 + 0.25) + 0.0) / 2
    assert loss("hinge", SCORES, BATCH) == pytest.approx((first + second) / 2)


def test_paper_own_holds_the_mean_negative_against_the_positive():
    first = 0.4 - 0.5 + 0.25
    second = 0.0  # (0.2 - 0.6) / 2 - 0.3 + 0.25 < 0
    assert loss("paper_own", SCORES, BATCH) == pytest.approx((first + second) / 2)


def test_hardest_holds_the_best_negative_against_the_positive():
    first, second = 0.4 - 0.5 + 0.25, 0.2 - 0.3 + 0.25
    assert loss("hardest", SCORES, BATCH) == pytest.approx((first + second) / 2)


def test_softmax_is_the_cross_entropy_of_the_gold():
    first = np.log(np.exp([0.5, 0.4]).sum()) - 0.5
    second = np.log(np.exp([0.2, 0.3, -0.6]).sum()) - 0.3
    assert loss("softmax", SCORES, BATCH) == pytest.approx((first + second) / 2)


def test_softmax_with_nil_has_one_outcome_more_that_scores_nothing():
    batch = batch_of([[1, 1, 0], [1, 1, 1], [1, 1, 1]], gold=[0, -1, 0], mask=[1, 1, 0])
    first = np.log(np.exp([0.5, 0.4, 0.0]).sum()) - 0.5
    second = np.log(np.exp([0.2, 0.3, -0.6, 0.0]).sum())  # none of them is right
    aux = {"nil": jnp.zeros(3)}
    assert loss("softmax", SCORES, batch, aux) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("form", FORMS)
def test_several_members_are_the_mean_of_their_losses(form):
    rng = np.random.default_rng(3)
    members = jnp.asarray(rng.uniform(-0.9, 0.9, (3, 4, 3)), jnp.float32)
    aux = {"mention": jnp.ones((3, 5)), "entity": jnp.ones((3, 3, 5))}
    own = [loss(form, members[:, i], BATCH, aux) for i in range(4)]
    assert loss(form, members.mean(1), BATCH, aux | {"members": members}) == pytest.approx(
        np.mean(own), rel=1e-5
    )


@pytest.mark.parametrize("form", ["hinge", "paper_own", "hardest", "softmax"])
def test_mentions_without_gold_or_negatives_are_left_out(form):
    scores = [[0.5, 0.4], [0.9, 0.1], [0.3, 0.8]]
    batch = batch_of([[1, 1], [1, 1], [0, 1]], gold=[0, -1, 1], mask=[1, 1, 1])
    alone = np.log(1 + np.exp(-0.1)) if form == "softmax" else 0.15
    assert loss(form, scores, batch) == pytest.approx(alone)  # of the first
    nothing = batch_of([[1, 0]], gold=[0], mask=[1])
    assert loss(form, [[0.5, 0.0]], nothing) == 0.0


def test_paper_batch_is_a_mean_over_all_candidates_of_the_batch():
    batch = random_graphs(3, b=5, r=4, padding=0.3)
    batch = batch.replace(mask=jnp.array([1, 1, 1, 0, 1], bool))  # type: ignore[attr-defined]
    slots = np.argmax(batch.candidate_mask, 1)  # the first that holds a candidate
    batch = batch.replace(gold=jnp.asarray(slots, jnp.int32).at[1].set(-1))
    rng = np.random.default_rng(4)
    mention, entity = rng.standard_normal((5, 6)), rng.standard_normal((5, 4, 6))

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    scores = np.array([[cosine(mention[i], e) for e in entity[i]] for i in range(5)])
    terms = []
    for i in range(5):
        gold = int(batch.gold[i])
        if gold < 0 or not batch.mask[i]:
            continue
        negatives = [
            cosine(mention[i], entity[k, j])
            for k in range(5)
            for j in range(4)
            if batch.mask[k] and batch.candidate_mask[k, j] and (k, j) != (i, gold)
        ]
        terms.append(max(np.mean(negatives) - scores[i, gold] + MARGIN, 0.0))
    assert len(terms) == 3
    assert sum(term > 0 for term in terms) > 1
    aux = {
        "mention": jnp.asarray(mention, jnp.float32),
        "entity": jnp.asarray(entity, jnp.float32),
    }
    assert loss("paper_batch", scores.astype(np.float32), batch, aux) == pytest.approx(
        np.mean(terms), abs=1e-6
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_satisfied_margin_costs_nothing_and_an_empty_batch_is_zero(form):
    def value_and_gradient(scores: jax.Array, batch: GraphBatch) -> tuple[float, jax.Array]:
        aux = {"mention": jnp.ones((1, 2)), "entity": jnp.zeros((1, 3, 2))}
        of = lambda s: margin_loss(s, aux, batch, form=form, margin=MARGIN)  # noqa: E731
        return jax.value_and_grad(of)(scores)

    scores = jnp.array([[-0.9, 0.9, -0.9]]) * (1e3 if form == "softmax" else 1)
    batch = batch_of([[1, 1, 1]], gold=[1], mask=[1])
    value, gradient = value_and_gradient(scores, batch)
    own = MARGIN / 3 if form == "upstream" else 0.0  # there the positive meets itself
    assert value == pytest.approx(own)
    assert np.all(gradient == 0)
    for empty in (
        batch_of([[1, 1, 1]], gold=[1], mask=[0]),
        batch_of([[0, 0, 0]], gold=[-1], mask=[1]),
    ):
        value, gradient = value_and_gradient(scores, empty)
        assert value == 0
        assert np.all(gradient == 0)


@pytest.mark.parametrize("form", FORMS)
def test_padding_of_the_batch_changes_nothing(form):
    batch = random_graphs(5, b=3, r=4)
    junk = random_graphs(6, b=2, r=4).replace(mask=jnp.zeros(2, bool))  # type: ignore[attr-defined]
    rng = np.random.default_rng(5)
    aux = {
        "mention": jnp.asarray(rng.standard_normal((5, 6)), jnp.float32),
        "entity": jnp.asarray(rng.standard_normal((5, 4, 6)), jnp.float32),
    }
    scores = jnp.asarray(rng.uniform(-1, 1, (5, 4)), jnp.float32)
    padded = jax.tree.map(lambda *x: jnp.concatenate(x), batch, junk)
    fields = {"form": form, "margin": MARGIN}
    alone = margin_loss(scores[:3], {k: v[:3] for k, v in aux.items()}, batch, **fields)
    assert margin_loss(scores, aux, padded, **fields) == pytest.approx(float(alone), abs=1e-6)


def test_an_unknown_form_is_named():
    with pytest.raises(UserError, match=r"loss\.form is 'triplet'; known are upstream, hinge"):
        loss("triplet", SCORES, BATCH)


def test_the_appended_gold_slot_is_not_scored():
    batch = random_graphs(7, b=2, r=4).replace(gold_slot=True)  # type: ignore[attr-defined]
    assert batch.scored == 3
    batch = batch.replace(gold=jnp.array([1, -1], jnp.int32))
    scores = [[0.1, 0.5, 0.2], [0.0, 0.1, 0.3]]
    assert loss("hinge", scores, batch) == pytest.approx(0.0)
    positive_of_the_first = 0.25 + 0.05  # against 0.5 itself and 0.3
    positive_zero = 0.35 + 0.75 + 0.45 + 0.25 + 0.35 + 0.55
    assert loss("upstream", scores, batch) == pytest.approx(
        (positive_of_the_first + positive_zero) / 12
    )


def test_eight_devices_have_the_gradients_of_one():
    result = run("tests.support.gradients_on_eight_devices", devices=8)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.split() == [
        f"{case}:{way}" for case in (*FORMS, "members") for way in ("pmap", "shard_map")
    ]
