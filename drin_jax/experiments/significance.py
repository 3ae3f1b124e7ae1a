"""How sure a difference between two rows is: over the same mentions, and over seeds.

Two questions, two tests. Would other mentions say the same? A paired sign-flip permutation test and
a bootstrap interval over the mentions, on each one's hit averaged over the seeds. Would other seeds
say the same? Welch's t-test between the seeds' scores. Several rows against one are corrected by
Holm's method. Where there is nothing to compute a value from it is None, shown as "n/a".
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

PERMUTATIONS = 10_000
RESAMPLES = 10_000
LEVEL = 0.05
DECIMALS = 9  # differences of seed averages that agree this far are one value

METHOD = (
    f"paired sign-flip permutation test and bootstrap 95 % interval over mentions ({PERMUTATIONS:,}"
    f" permutations, {RESAMPLES:,} resamples), Welch's t-test over seeds; p-values corrected by "
    f"Holm's method over the rows, significant below {LEVEL}"
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A row against another on one subset of a split; every mention counts (end to end).

    `difference`, `low` and `high` are fractions (Top-1 of `row` minus that of `against`, with its
    95 % interval). The `_holm` values are what to read; None where a value cannot be had.
    """

    row: str
    against: str
    split: str
    subset: str
    mentions: int
    seeds: tuple[int, int]
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    t: float | None
    p_seeds: float | None
    p_seeds_holm: float | None

    @property
    def significant(self) -> bool:
        """Whether other mentions and other seeds would both be expected to say the same."""
        return all(p is not None and p < LEVEL for p in (self.p_holm, self.p_seeds_holm))


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1) over seeds; None where too few."""
    if not len(values):
        return None, None
    mean = float(np.mean(values))
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def permutation_p(differences: np.ndarray, seed: int = 0) -> float | None:
    """Two-sided p that paired differences [n] have mean 0, by flipping signs at random; None over
    no mention. Never below 1 / (PERMUTATIONS + 1).

    Differences of hits take few values, so instead of a sign for each mention, as in
    `scipy.stats.permutation_test`, the number of positive signs among the mentions of one size is
    drawn (binomial): the same distribution, without 10,000 x n numbers.
    """
    if not len(differences):
        return None
    sizes, counts = np.unique(np.abs(np.round(differences, DECIMALS)), return_counts=True)
    rng = np.random.default_rng(seed)
    positive = rng.binomial(counts, 0.5, (PERMUTATIONS, len(counts)))
    sums = (2 * positive - counts) @ sizes
    observed = abs(float(np.sum(np.round(differences, DECIMALS))))
    as_large = np.sum(np.abs(sums) >= observed - 1e-6)
    return float(1 + as_large) / (PERMUTATIONS + 1)


def bootstrap_interval(
    differences: np.ndarray, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """95 % percentile interval of the mean of differences [n], mentions drawn with replacement.

    What is drawn is how often each value occurs (multinomial): the same resamples as
    `scipy.stats.bootstrap`'s, in a hundredth of the time.
    """
    n = len(differences)
    if not n:
        return None, None
    values, counts = np.unique(np.round(differences, DECIMALS), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    low, high = np.quantile(drawn @ values / n, (0.025, 0.975))
    return float(low), float(high)


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float | None]:
    """Welch's t and its two-sided p between the seeds' scores of two rows; None with fewer than
    two seeds on a side, or where no score varies at all."""
    if min(len(a), len(b)) < 2 or np.ptp(a) + np.ptp(b) < 1e-12:
        return None, None
    # From the moments: scipy's ttest_ind warns where one side alone does not vary.
    moments = [(np.mean(side), np.std(side, ddof=1), len(side)) for side in (a, b)]
    t, p = stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False)
    return float(t), float(p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of the values that there are; None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None and not math.isnan(p))
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        out[i] = largest
    return out


def compare(
    hits: Mapping[str, np.ndarray],
    against: str,
    *,
    split: str,
    subset: str = "all",
    chosen: np.ndarray | None = None,
) -> list[Comparison]:
    """Every row against one of them, on the same mentions.

    Args:
        hits: row -> [seeds, n] 0 or 1: the mention's gold is first. At least one seed each.
        against: one of the rows; where it is not there (it failed) nothing is compared.
        chosen: [n] bool, the subset's mentions; None: all.
    """
    if against not in hits:
        return []
    others = [row for row in hits if row != against]
    chosen = np.ones(hits[against].shape[1], bool) if chosen is None else chosen
    theirs = hits[against][:, chosen].astype(np.float64)
    n = int(chosen.sum())
    raw: list[Comparison] = []
    for row in others:
        ours = hits[row][:, chosen].astype(np.float64)
        differences = ours.mean(0) - theirs.mean(0)
        low, high = bootstrap_interval(differences)
        t, p_seeds = welch(list(ours.mean(1)), list(theirs.mean(1))) if n else (None, None)
        raw.append(
            Comparison(
                row=row,
                against=against,
                split=split,
                subset=subset,
                mentions=n,
                seeds=(len(ours), len(theirs)),
                difference=float(differences.mean()) if n else None,
                low=low,
                high=high,
                p=permutation_p(differences),
                p_holm=None,
                t=t,
                p_seeds=p_seeds,
                p_seeds_holm=None,
            )
        )
    over_mentions, over_seeds = holm([c.p for c in raw]), holm([c.p_seeds for c in raw])
    return [
        dataclasses.replace(c, p_holm=a, p_seeds_holm=b)
        for c, a, b in zip(raw, over_mentions, over_seeds, strict=True)
    ]
