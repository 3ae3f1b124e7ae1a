"""Ranking metrics from two counts a mention: who scores higher than the gold, and who as high.

Three readings of a tie, all reported: *optimistic* puts the gold first among its ties (the
published metric: a constant scorer gets 100 %), *pessimistic* last, and *mean* gives it the mean
rank of its ties, which is what a scorer without information deserves. A fourth, *key*, breaks ties
by the order of retrieval (score, then the knowledge base's file order).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipeline.schema import UserError

TIES = ("mean", "optimistic", "pessimistic", "key")


class NotFinite(UserError):
    """A loss, a gradient or a score that is not finite: nothing can be ranked by it."""


@dataclasses.dataclass(frozen=True)
class RankCounts:
    """Per mention of a split, over its other candidates: how many score higher than the gold, how
    many tie with it, and how many of those stand before it in retrieval order. All [n], int.

    Where `gold` (slot, -1 for none among the candidates) is negative the counts mean nothing.
    """

    higher: np.ndarray
    tied: np.ndarray
    tied_before: np.ndarray
    gold: np.ndarray

    def ranks(self, ties: str) -> np.ndarray:
        """Rank of the gold from 1, float [n]; infinite where it is not among the candidates."""
        extra: dict[str, np.ndarray] = {
            "mean": self.tied / 2,
            "optimistic": np.zeros_like(self.tied),
            "pessimistic": self.tied,
            "key": self.tied_before,
        }
        return np.where(self.gold >= 0, 1.0 + self.higher + extra[ties], np.inf)


def summarize(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """`hits@k` for every k and `mrr`, as fractions; a gold that was not ranked (infinite) scores 0.

    NaN-free: over no mention every value is 0, so look at `n` beside it.
    """
    n = len(ranks)
    out: dict[str, float] = {"n": n}
    for k in ks:
        out[f"hits@{k}"] = float(np.sum(ranks <= k)) / max(n, 1)
    out["mrr"] = float(np.sum(1.0 / ranks)) / max(n, 1)
    return out


def check_finite(scores: np.ndarray, candidates: np.ndarray, of: str = "the model") -> None:
    """NotFinite where a real candidate [n, r] (bool) has no finite score [n, r]: it would compare
    as neither higher than any other nor lower."""
    bad = (candidates & ~np.isfinite(scores)).any(1)
    if bad.any():
        raise NotFinite(
            f"{bad.sum()} of {len(bad)} mentions have scores of {of} that are not finite"
        )


def slot_counts(
    scores: np.ndarray, gold: np.ndarray, candidates: np.ndarray, of: str = "the model"
) -> RankCounts:
    """The counts of host scores [n, r] for gold slots [n] among real candidates [n, r] (bool).

    Raises:
        NotFinite: a candidate's score is not finite; `of` says whose it is.
    """
    check_finite(scores, candidates, of)
    own = np.take_along_axis(scores, np.maximum(gold, 0)[:, None], 1)
    slots = np.arange(scores.shape[1])
    others = candidates & (slots != gold[:, None])
    tied = others & (scores == own)
    return RankCounts(
        higher=np.sum(others & (scores > own), 1),
        tied=np.sum(tied, 1),
        tied_before=np.sum(tied & (slots < gold[:, None]), 1),
        gold=gold,
    )
