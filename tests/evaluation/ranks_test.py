"""Ranks and ties against numbers worked out by hand."""

import numpy as np
import pytest

from drin_jax.evaluation.ranks import NotFinite, RankCounts, slot_counts, summarize


def counts_of(scores: list[list[float]], gold: list[int], real: list[list[int]]) -> RankCounts:
    return slot_counts(np.array(scores), np.array(gold), np.array(real, bool))


def test_ranks_under_every_reading_of_a_tie() -> None:
    # Gold in slot 2: one candidate above it, slots 1 and 3 tie with it, slot 4 is below.
    counts = counts_of([[9, 5, 5, 5, 1]], [2], [[1, 1, 1, 1, 1]])
    assert counts.ranks("optimistic") == [2]
    assert counts.ranks("mean") == [3]
    assert counts.ranks("pessimistic") == [4]
    assert counts.ranks("key") == [3]  # slot 1 stands before it


def test_a_constant_scorer_gets_its_due() -> None:
    n, r = 40, 10
    gold = np.arange(n) % r
    counts = slot_counts(np.zeros((n, r)), gold, np.ones((n, r), bool))
    assert summarize(counts.ranks("optimistic"), (1,))["hits@1"] == 1.0  # the published metric
    assert summarize(counts.ranks("pessimistic"), (1,))["hits@1"] == 0.0
    assert summarize(counts.ranks("key"), (1,))["hits@1"] == pytest.approx(1 / r)
    np.testing.assert_array_equal(counts.ranks("mean"), 5.5)


def test_padding_and_missing_golds_are_not_ranked() -> None:
    counts = counts_of([[1, 9, 9], [1, 2, 3]], [0, -1], [[1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(counts.ranks("mean"), [1, np.inf])


def test_summary_by_hand() -> None:
    values = summarize(np.array([1.0, 2.0, 4.0, np.inf]), (1, 3))
    assert values == {"n": 4, "hits@1": 0.25, "hits@3": 0.5, "mrr": (1 + 1 / 2 + 1 / 4) / 4}
    assert summarize(np.array([]), (1,)) == {"n": 0, "hits@1": 0.0, "mrr": 0.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_rank_nothing(value: float) -> None:
    """NaN compares as neither higher nor lower: the gold would always be first."""
    scores = [[0.0, 1.0], [value, 1.0], [0.0, value]]
    with pytest.raises(NotFinite, match="2 of 3 mentions have scores of the model that are not"):
        counts_of(scores, [0, 0, 0], [[1, 1]] * 3)
    padded = counts_of(scores, [0, 1, 0], [[1, 1], [0, 1], [1, 0]])  # where there is no candidate
    assert padded.ranks("mean").tolist() == [2, 1, 1]
