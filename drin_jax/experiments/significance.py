"""How sure a difference between two rows is: over the same mentions, and over seeds.

Two questions, two tests. Would other mentions say the same? A paired sign-flip permutation test and
a bootstrap interval over the mentions, on each one's hit averaged over the seeds. Would other seeds
say the same? Welch's t-test between the seeds' scores. Several rows against one are corrected by
Holm's method. Where there is nothing to compute a value from it is NaN, shown as "n/a".
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
    """A row against the suite's on one subset of its split; every mention counts (end to end).

    `difference`, `low` and `high` are fractions (Top-1 of `row` minus that of `against`, with its
    95 % interval). The `_holm` values are what to read; NaN where a value cannot be had.
    """

    row: str
    subset: str
    mentions: int
    seeds: tuple[int, int]
    difference: float
    low: float
    high: float
    p: float
    t: float
    p_seeds: float
    p_holm: float = math.nan
    p_seeds_holm: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether other mentions and other seeds would both be expected to say the same."""
        return self.p_holm < LEVEL and self.p_seeds_holm < LEVEL

    @property
    def mark(self) -> str:
        """▲ above, ▼ below; △ ▽ by the test over mentions alone; "" where neither says so."""
        signs = "▲▼" if self.significant else "△▽"
        return signs[int(self.difference < 0)] if self.p_holm < LEVEL else ""


def permutation_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p that paired differences [n] have mean 0, by flipping signs at random; NaN over
    no mention. Never below 1 / (PERMUTATIONS + 1).

    Differences of hits take few values, so instead of a sign for each mention, as in
    `scipy.stats.permutation_test`, the number of positive signs among the mentions of one size is
    drawn (binomial): the same distribution, without 10,000 x n numbers.
    """
    if not len(differences):
        return math.nan
    sizes, counts = np.unique(np.abs(np.round(differences, DECIMALS)), return_counts=True)
    rng = np.random.default_rng(seed)
    positive = rng.binomial(counts, 0.5, (PERMUTATIONS, len(counts)))
    sums = (2 * positive - counts) @ sizes
    observed = abs(float(np.sum(np.round(differences, DECIMALS))))
    as_large = np.sum(np.abs(sums) >= observed - 1e-6)
    return float(1 + as_large) / (PERMUTATIONS + 1)


def bootstrap_interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of differences [n], mentions drawn with replacement.

    What is drawn is how often each value occurs (multinomial): the same resamples as
    `scipy.stats.bootstrap`'s, in a hundredth of the time.
    """
    n = len(differences)
    if not n:
        return math.nan, math.nan
    values, counts = np.unique(np.round(differences, DECIMALS), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    low, high = np.quantile(drawn @ values / n, (0.025, 0.975))
    return float(low), float(high)


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Welch's t and its two-sided p between the seeds' scores of two rows; NaN with fewer than
    two seeds on a side, or where no score varies at all."""
    if min(len(a), len(b)) < 2 or np.ptp(a) + np.ptp(b) < 1e-12:
        return math.nan, math.nan
    # From the moments: scipy's ttest_ind warns where one side alone does not vary.
    moments = [(np.mean(side), np.std(side, ddof=1), len(side)) for side in (a, b)]
    t, p = stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False)
    return float(t), float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the values that there are; NaN stays NaN."""
    p = np.array(p_values, float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]
    p[order] = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(order), 0, -1)))
    return p.tolist()


def compare(
    hits: Mapping[str, np.ndarray],
    against: str,
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
    mentions = slice(None) if chosen is None else chosen
    own = {row: every[:, mentions].astype(np.float64) for row, every in hits.items()}
    theirs = own.pop(against)
    n = theirs.shape[1]
    found = []
    for row, ours in own.items():
        differences = ours.mean(0) - theirs.mean(0)
        low, high = bootstrap_interval(differences)
        t, p_seeds = (
            welch(ours.mean(1).tolist(), theirs.mean(1).tolist()) if n else (math.nan, math.nan)
        )
        found.append(
            Comparison(
                *(row, subset, n, (len(ours), len(theirs))),
                difference=float(differences.mean()) if n else math.nan,
                low=low,
                high=high,
                p=permutation_p(differences),
                t=t,
                p_seeds=p_seeds,
            )
        )
    corrected = holm([c.p for c in found]), holm([c.p_seeds for c in found])
    return [
        dataclasses.replace(c, p_holm=over_mentions, p_seeds_holm=over_seeds)
        for c, over_mentions, over_seeds in zip(found, *corrected, strict=True)
    ]
