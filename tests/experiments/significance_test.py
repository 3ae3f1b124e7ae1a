"""The experiments' statistics: answers known beforehand, and nothing to compute from."""

import numpy as np
import pytest
from scipy import stats

from drin_jax.experiments.significance import (
    PERMUTATIONS,
    Comparison,
    bootstrap_interval,
    compare,
    holm,
    permutation_p,
    welch,
)

SEEDS, MENTIONS = 5, 2000


def hits(rng: np.random.Generator, rate: float, seeds: int = SEEDS) -> np.ndarray:
    """[seeds, n]: mentions that are easy or hard for all seeds alike."""
    difficulty = rng.beta(8 * rate, 8 * (1 - rate), MENTIONS)
    return rng.random((seeds, MENTIONS)) < difficulty


def one(found: list[Comparison]) -> Comparison:
    assert len(found) == 1
    return found[0]


def test_equal_systems_give_p_values_that_are_uniform() -> None:
    rng = np.random.default_rng(0)
    p = [permutation_p(rng.integers(-1, 2, 400) / 1.0, seed=i) for i in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_a_clear_difference_is_found_by_every_test() -> None:
    rng = np.random.default_rng(1)
    found = one(compare({"good": hits(rng, 0.8), "bad": hits(rng, 0.6)}, "bad"))
    assert found.p == 1 / (PERMUTATIONS + 1)
    assert 0.1 < found.low < found.difference < found.high < 0.3
    assert found.p_seeds < 0.001
    assert found.significant
    assert found.mark == "▲"
    assert (found.mentions, found.seeds) == (MENTIONS, (SEEDS, SEEDS))


def test_the_same_row_twice_does_not_differ() -> None:
    same = hits(np.random.default_rng(2), 0.7)
    found = one(compare({"a": same, "b": same.copy()}, "b"))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.p_seeds == pytest.approx(1)
    assert not found.significant


def test_permutations_and_resamples_are_scipys() -> None:
    rng = np.random.default_rng(3)
    differences = (rng.integers(0, 6, 60) - rng.integers(0, 5, 60)) / 5
    theirs = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(4),
        vectorized=True,
    )
    assert permutation_p(differences) == pytest.approx(theirs.pvalue, abs=0.015)
    interval = stats.bootstrap(
        (differences,), np.mean, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert bootstrap_interval(differences) == pytest.approx(tuple(interval), abs=0.01)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    truth = -0.5 * 0.3 + 0.5 * 0.4
    covered = 0
    for i in range(300):
        low, high = bootstrap_interval(rng.choice([-0.5, 0, 0.5], 300, p=[0.3, 0.3, 0.4]), seed=i)
        covered += low <= truth <= high
    assert 0.91 < covered / 300 < 0.985


def test_welchs_t_by_its_formula() -> None:
    a, b = [0.81, 0.83, 0.80, 0.84], [0.78, 0.79, 0.80]
    t, p = welch(a, b)
    variances = np.var(a, ddof=1) / 4, np.var(b, ddof=1) / 3
    assert t == pytest.approx((np.mean(a) - np.mean(b)) / np.sqrt(sum(variances)))
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2 / 2)
    assert p == pytest.approx(2 * stats.t.sf(t, freedom))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    np.testing.assert_array_equal(holm([0.9, np.nan, 0.8]), [1.0, np.nan, 1.0])
    assert holm([]) == []


def test_one_seed_has_no_t() -> None:
    rng = np.random.default_rng(7)
    found = one(compare({"a": hits(rng, 0.7, 1), "b": hits(rng, 0.6, 1)}, "b"))
    assert np.isnan([found.t, found.p_seeds, found.p_seeds_holm]).all()
    assert found.p < 0.001  # over mentions there is enough to say something
    assert not found.significant
    assert found.mark == "△"


def test_nothing_that_varies_has_no_t() -> None:
    assert np.isnan([welch([0.5, 0.5], [0.5, 0.5]), welch([0.5, 0.5], [0.7, 0.7])]).all()


def test_a_class_without_mentions_is_told_by_nan() -> None:
    some = hits(np.random.default_rng(8), 0.5)
    nobody = np.zeros(MENTIONS, bool)
    found = one(compare({"a": some, "b": ~some}, "b", subset="x", chosen=nobody))
    assert found.mentions == 0
    assert np.isnan([found.difference, found.low, found.p, found.p_seeds]).all()
    assert found.mark == ""


def test_without_the_row_to_compare_with_there_is_nothing() -> None:
    assert compare({"a": np.ones((2, 3), bool)}, "failed") == []
