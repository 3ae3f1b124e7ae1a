"""Probabilities from scores, and the decision that no candidate is right.

    p_j    = exp(s_j / T) / (sum over candidates exp(s_i / T) + exp(b))
    p_none = exp(b)       / (the same)

T and b are those under which the golds of valid are likeliest (temperature scaling: Guo et al.,
ICML 2017, with one outcome more). A mention is NIL from that p_none on with which most of valid is
decided right.
"""

import dataclasses
from typing import Any

import numpy as np

from data_pipeline.schema import NIL, UserError
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import check_finite

BINS = 15
COVERAGES = tuple(i / 20 for i in range(1, 21))
NEVER = 2.0  # a probability that nothing reaches
_COLDEST, _NONE = 1e-4, 50.0  # of a temperature, in spreads of the scores; most of |b|


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the scores of one system become probabilities.

    Attributes:
        temperature: T above.
        none: b above; None: in valid some candidate was always right, so nothing is known of it.
        threshold: p_none from which on a mention is NIL; NEVER where valid has no NIL.
    """

    temperature: float
    none: float | None = None
    threshold: float = NEVER

    def probabilities(self, scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """[n,r+1]: of each candidate, 0 where there is none, and last that none is right.

        Args:
            scores: [n,r], higher is better.
            candidates: [n,r] bool: the slot holds a candidate.
        """
        from scipy import special

        none = -np.inf if self.none is None else self.none
        logits = _logits(scores, candidates, self.temperature, none)
        logits[~candidates.any(1), -1] = 0.0  # without candidates none is right, surely
        return np.asarray(special.softmax(logits, axis=1))

    def decide(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot of the likeliest candidate, or NIL, [n], and the probability of that [n]."""
        of_none, slots = probabilities[:, -1], probabilities[:, :-1].argmax(1)
        best = probabilities[np.arange(len(slots)), slots]
        is_nil = of_none >= self.threshold
        return np.where(is_nil, NIL, slots), np.where(is_nil, of_none, best)


def calibrate(view: SplitView, scores: np.ndarray) -> Calibration:
    """The calibration of a system by its scores [n,r] on a split, which is valid.

    Raises:
        UserError: no mention of the split has its gold among the candidates.
        NotFinite: a score is not finite.
    """
    from scipy import optimize, special

    check_finite(scores, view.candidates)
    if not (view.gold >= 0).any():
        raise UserError(
            f"no mention of {view.split} has its gold among the candidates; nothing calibrates"
        )
    some = view.candidates.any(1)
    there = view.candidates[some]
    middle = float(scores[view.candidates].mean())  # what is added to all scores says nothing
    own = scores[some] - middle
    right = np.where(view.gold >= 0, view.gold, scores.shape[1])[some]
    knows_none = bool((right == scores.shape[1]).any())
    spread = float(np.std(own[there])) or 1.0

    scaled = np.where(there, own / spread, 0)
    ends, of_none = _softened(scaled, there, right, knows_none)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross-entropy at spread / T and b, convex in both, and its slopes."""
        none = x[1] if knows_none else -np.inf
        logits = _logits(scaled, there, 1 / x[0], none)
        total = special.logsumexp(logits, 1)
        p = np.exp(logits - total[:, None])
        entropy = total - x[0] * ends - (x[1] * of_none if knows_none else 0)
        slopes = (p[:, :-1] * scaled).sum(1) - ends, p[:, -1] - of_none
        return float(entropy.mean()), np.array([one.mean() for one in slopes[: len(x)]])

    begin, bounds = [1.0], [(_COLDEST, 1 / _COLDEST)]
    if knows_none:
        begin, bounds = [*begin, 0.0], [*bounds, (-_NONE, _NONE)]
    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 2_000}
    x = optimize.minimize(
        loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).x
    temperature = spread / float(x[0])
    fitted = Calibration(temperature, float(x[1]) + middle / temperature if knows_none else None)
    probabilities = fitted.probabilities(scores, view.candidates)
    return dataclasses.replace(fitted, threshold=_threshold(view, probabilities))


def decisions(view: SplitView, scores: np.ndarray, calibration: Calibration) -> dict[str, Any]:
    """What comes of deciding every mention of a split, as JSON: `accuracy` over all of them, NIL
    counted (right where the knowledge base has no answer and that is said), `nil` (precision,
    recall, f1, n), the calibration error `ece` with its `bins` (mean probability, share right,
    mentions), `coverage` (share of the mentions answered, the surest first -> share right among
    them) and the mean of what is wrong along it, `risk`."""
    probabilities = calibration.probabilities(scores, view.candidates)
    decided, sure = calibration.decide(probabilities)
    is_nil = view.gold_entity < 0
    right = np.where(decided == NIL, is_nil, (view.gold >= 0) & (decided == view.gold))
    n, said = len(right), decided == NIL
    hits = int(np.sum(said & is_nil))
    # Of none, the probability is that no candidate is right: also where the gold was not retrieved.
    as_said = np.where(decided == NIL, view.gold < 0, right)
    surest = right[np.argsort(-sure, kind="stable")]
    along = np.cumsum(surest) / np.arange(1, n + 1)
    bins = _bins(sure, as_said)
    return {
        "accuracy": float(right.mean()) if n else 0.0,
        "nil": {
            "precision": hits / max(int(said.sum()), 1),
            "recall": hits / max(int(is_nil.sum()), 1),
            "f1": 2 * hits / max(int(said.sum() + is_nil.sum()), 1),
            "n": int(is_nil.sum()),
        },
        "ece": sum(count * abs(mean - share) for mean, share, count in bins) / max(n, 1),
        "bins": bins,
        "coverage": {f"{c:.2f}": float(along[max(int(c * n) - 1, 0)]) for c in COVERAGES if n},
        "risk": float(1 - along.mean()) if n else 0.0,
    }


def _logits(
    scores: np.ndarray, candidates: np.ndarray, temperature: float, none: float
) -> np.ndarray:
    own = np.where(candidates, np.asarray(scores, np.float64) / temperature, -np.inf)
    return np.concatenate([own, np.full((len(own), 1), none)], axis=1)


def _softened(
    scaled: np.ndarray, there: np.ndarray, right: np.ndarray, knows_none: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What is right of n mentions, as likely as n of n + 1 right ones make it: the mean of the
    scores [n,r] over it, [n], and the probability of none, [n].

    The rest goes to the likeliest other candidate and to none. Without it, a split that a system
    has wholly right would make every probability 0 or 1 [Platt 1999, 2.2].
    """
    n, r = scaled.shape
    rest = 1 / (n + 2)
    is_none, row = right == r, np.arange(n)
    slot = np.where(is_none, 0, right)
    others = np.where(there & (np.arange(r) != right[:, None]), scaled, -np.inf)
    rival, some = others.argmax(1), np.isfinite(others).any(1)
    of_none = np.where(is_none, 1 - rest * some, rest * (1 - 0.5 * some) * knows_none)
    of_rival = np.where(some, rest - np.where(is_none, 0, of_none), 0)
    of_right = 1 - of_none - of_rival
    return of_right * scaled[row, slot] + of_rival * scaled[row, rival], of_none


def _threshold(view: SplitView, probabilities: np.ndarray) -> float:
    """The p_none with which most mentions are decided right: between two of theirs, 0.5 where that
    is there, else the middle of their log-odds; of several the nearest to 0.5."""
    is_nil = view.gold_entity < 0
    if not is_nil.any():
        return NEVER
    of_none, slots = probabilities[:, -1], probabilities[:, :-1].argmax(1)
    linked = (view.gold >= 0) & (slots == view.gold)
    order = np.argsort(-of_none, kind="stable")
    gain = np.cumsum(is_nil[order].astype(int) - linked[order])
    falling = np.append(of_none[order], 0.0)
    ends = np.diff(falling, append=-1.0)[:-1] != 0  # equal ones are decided alike
    most = gain[ends].max(initial=0)
    if most <= 0:
        return NEVER
    from scipy import special

    best = np.flatnonzero(ends & (gain == most))
    high, low = (special.logit(np.clip(falling[at], 1e-15, 1 - 1e-15)) for at in (best, best + 1))
    middle = np.where((low < 0) & (high >= 0), 0.0, (low + high) / 2)
    nearest = int(np.abs(middle).argmin())
    last, first = best[nearest], best[nearest] + 1  # NIL, and no longer NIL
    return float(np.clip(special.expit(middle[nearest]), falling[first], falling[last]))


def _bins(sure: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """BINS of as many mentions each, by probability."""
    parts = np.array_split(np.argsort(sure, kind="stable"), BINS)
    return [
        (float(sure[part].mean()), float(right[part].mean()), len(part))
        for part in parts
        if len(part)
    ]
