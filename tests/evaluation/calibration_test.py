"""Probabilities and decisions: worked out by hand, and honest where the truth is known."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from data_pipeline import schema
from drin_jax.evaluation.calibration import NEVER, Calibration, calibrate, decisions
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import NotFinite
from tests.support.fixtures import refusal

N, R = 20_000, 5


def view_of(
    gold: np.ndarray, candidates: np.ndarray, entity: np.ndarray | None = None
) -> SplitView:
    return SplitView(
        split="valid",
        candidates=candidates,
        retrieval_score=np.zeros(candidates.shape),
        text_edge=np.zeros(candidates.shape),
        gold=gold,
        gold_any=gold,
        retrieved=candidates.shape[1],
        gold_entity=np.where(gold >= 0, gold, schema.NIL) if entity is None else entity,
        groups={},
    )


def drawn(seed: int, none: float | None, temperature: float) -> tuple[SplitView, np.ndarray]:
    """Golds that are drawn with the probabilities that the scores, times `temperature`, mean."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (N, R))
    candidates = rng.random((N, R)) < 0.9
    candidates[:, 0] = True
    logits = np.where(candidates, scores, -np.inf)
    if none is not None:
        logits = np.concatenate([logits, np.full((N, 1), none)], 1)
    chances = special.softmax(logits, 1).cumsum(1)
    gold = (rng.random((N, 1)) > chances).sum(1)
    return view_of(np.where(gold == R, -1, gold), candidates), scores * temperature


@pytest.mark.parametrize("temperature", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("none", [None, -1.0])
def test_the_truth_is_found_again(temperature: float, none: float | None) -> None:
    """Scores of any scale; 20,000 draws tell T to 3 % and b to 0.1."""
    view, scores = drawn(0, none, temperature)
    found = calibrate(view, scores)
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    if none is None:
        assert (found.none, found.threshold) == (None, NEVER)
    else:
        assert found.none == pytest.approx(none, abs=0.1)
    other, scores = drawn(1, none, temperature)
    said = decisions(other, scores, found)
    assert said["ece"] < 0.02
    wrong = decisions(other, scores, dataclasses.replace(found, temperature=temperature / 3))
    assert wrong["ece"] > 0.05


@pytest.mark.parametrize("seed", range(12))
def test_no_other_temperature_or_none_is_likelier(seed: int) -> None:
    """Scores of a model that is good, where most candidates are far below and a tenth has none
    right; the likelihood is concave in 1 / T and b, so the nearest others tell of all."""
    rng = np.random.default_rng(seed)
    n, r = 1500, 30
    gold = np.where(rng.random(n) < 0.1, -1, rng.integers(0, 3, n))
    scores = rng.normal(-6, rng.uniform(2, 6), (n, r))
    scores[np.arange(n)[gold >= 0], gold[gold >= 0]] += rng.gamma(4, 3, (gold >= 0).sum())
    view = view_of(gold, rng.random((n, r)) < np.where(np.arange(r) < 3, 1, 0.7))
    found = calibrate(view, scores)
    assert found.none is not None

    def loss(sharper: float, more: float) -> float:
        other = Calibration(found.temperature / sharper, (found.none or 0) + more)
        chances = other.probabilities(scores, view.candidates)
        return -float(np.log(chances[np.arange(n), np.where(gold >= 0, gold, r)]).mean())

    near = [loss(a, b) for a in (0.98, 1, 1.02) for b in (-0.1, 0, 0.1) if (a, b) != (1, 0)]
    assert loss(1, 0) < min(near)


@pytest.mark.parametrize("shift", [-3.0, 0.5, 100.0])
def test_what_is_added_to_all_scores_changes_no_probability(shift: float) -> None:
    """Cosines of a narrow range, a fifth of them without a right one."""
    rng = np.random.default_rng(0)
    gold = np.where(rng.random(2000) < 0.2, -1, rng.integers(0, R, 2000))
    scores = rng.normal(0, 0.02, (2000, R))
    scores[np.arange(2000)[gold >= 0], gold[gold >= 0]] += 0.08
    view = view_of(gold, np.ones((2000, R), bool))
    plain, moved = calibrate(view, scores), calibrate(view, scores + shift)
    assert moved.temperature == pytest.approx(plain.temperature, rel=1e-3)
    ours = moved.probabilities(scores + shift, view.candidates)
    np.testing.assert_allclose(ours, plain.probabilities(scores, view.candidates), atol=1e-4)
    assert decisions(view, scores + shift, moved)["ece"] < 0.02


def test_probabilities_are_the_equation() -> None:
    scores = np.array([[1.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    there = np.array([[1, 1, 0], [0, 0, 0]], bool)
    found = Calibration(0.5, none=1.0).probabilities(scores, there)
    whole = np.exp(2) + 1 + np.exp(1)
    np.testing.assert_allclose(found[0], [np.exp(2) / whole, 1 / whole, 0, np.exp(1) / whole])
    np.testing.assert_array_equal(found[1], [0, 0, 0, 1])
    np.testing.assert_allclose(
        Calibration(1.0).probabilities(scores, there)[0, :2], special.softmax([1.0, 0.0])
    )


def test_the_threshold_is_where_most_are_right() -> None:
    """Two NIL with low scores and one with a high one: two are said, the third is not worth it."""
    scores = np.array([[5.0, 0], [4, 0], [3, 0], [-4, -5], [-5, -6], [4.5, 0]])
    gold = np.array([0, 0, 0, -1, -1, -1])
    view = view_of(gold, np.ones((6, 2), bool))
    found = calibrate(view, scores)
    assert 0 < found.threshold < NEVER
    said = decisions(view, scores, found)
    assert said["accuracy"] == pytest.approx(5 / 6)
    assert said["nil"] == {"precision": 1.0, "recall": pytest.approx(2 / 3), "f1": 0.8, "n": 3}


def test_what_is_no_nil_is_not_right_when_nil_is_said() -> None:
    """A gold that was not retrieved has an answer; one outside the base has none."""
    view = view_of(np.array([-1, -1]), np.ones((2, 2), bool), np.array([3, schema.OUTSIDE_KB]))
    said = decisions(view, np.zeros((2, 2)), Calibration(1.0, none=5.0, threshold=0.5))
    assert said["accuracy"] == 0.5
    assert said["nil"]["n"] == 1
    assert said["nil"]["precision"] == 0.5
    # That none of the candidates is right is true of both, and what its probability is of.
    assert said["bins"][0][1] == 1.0


def test_decisions_along_coverage() -> None:
    """Four right and sure, one wrong and unsure."""
    scores = np.array([[9.0, 0]] * 4 + [[0.1, 0]])
    view = view_of(np.array([0, 0, 0, 0, 1]), np.ones((5, 2), bool))
    said = decisions(view, scores, Calibration(1.0))
    assert said["coverage"]["0.80"] == 1.0
    assert said["coverage"]["1.00"] == 0.8
    assert said["risk"] == pytest.approx(0.2 / 5)
    assert said["nil"]["n"] == 0
    assert sum(count for _, _, count in said["bins"]) == 5


def test_where_nothing_can_be_calibrated_it_is_said() -> None:
    nothing = view_of(np.array([-1]), np.ones((1, 2), bool))
    assert "nothing calibrates" in refusal(lambda: calibrate(nothing, np.zeros((1, 2))))
    some = view_of(np.array([0]), np.ones((1, 2), bool))
    with pytest.raises(NotFinite):
        calibrate(some, np.array([[np.nan, 0]]))


def test_scores_without_any_spread_and_perfect_ones_calibrate() -> None:
    view = view_of(np.zeros(9, int), np.ones((9, 3), bool))
    flat = calibrate(view, np.zeros((9, 3)))
    assert np.isfinite(flat.temperature)
    sharp = calibrate(view, np.tile([1.0, 0, 0], (9, 1)))
    said = sharp.probabilities(np.tile([1.0, 0, 0], (9, 1)), view.candidates)
    assert said[0, 0] == pytest.approx(10 / 11, abs=1e-5), "nine of nine, as of ten of eleven"


def test_between_what_is_linked_and_nil_the_threshold_is_a_half() -> None:
    """Where valid leaves it open: no NIL's own probability, which the next may just miss."""
    gold = np.array([0] * 30 + [-1] * 3)
    scores = np.zeros((33, 3))
    scores[:30, 0] = 8
    found = calibrate(view_of(gold, np.ones((33, 3), bool)), scores)
    assert found.threshold == 0.5
