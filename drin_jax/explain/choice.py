"""Which mention of a split: by id, any, or any that the run has wrong."""

import dataclasses

import numpy as np
from rapidfuzz import process

from data_pipeline.progress import say
from data_pipeline.schema import SPLITS, UserError
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.evaluation.ranks import slot_counts
from drin_jax.workdir import FinishedRun

RANDOM, RANDOM_WRONG = "random", "random-wrong"
NEAREST = 4  # ids offered for an unknown one


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ranks a whole split; ties in the order of retrieval.

    `ranks` [n] float are the gold's, infinite where it is not among the candidates; `predicted` [n]
    the slot that is ranked first, -1 without candidates; `wrong` [n] bool.
    """

    view: SplitView
    scores: np.ndarray  # [n, r]
    ranks: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, view: SplitView, scores: np.ndarray) -> "Outcome":
        """The ranking that these scores [n, r] make of the view's mentions."""
        best = np.where(view.candidates, scores, -np.inf).argmax(1)
        return cls(
            view=view,
            scores=scores,
            ranks=slot_counts(scores, view.gold, view.candidates).ranks("key"),
            predicted=np.where(view.candidates.any(1), best, -1),
        )

    @property
    def wrong(self) -> np.ndarray:
        return self.ranks > 1


def outcome(run: FinishedRun, split: str) -> Outcome:
    """The run's ranking of every mention of the split."""
    n = run.store.check_split(split)
    say(f"ranking {n} mentions of {split}")
    return Outcome.of(SplitView.of(run.store, split, run.setup.spec.r), run.scores(split))


def mention_ids(run: FinishedRun, split: str) -> list[str]:
    """Ids of the split's mentions, in file order."""
    ids = run.store.strings("mention_id")
    return [ids[int(row)] for row in run.store.array(f"{split}_mention")]


def choose(run: FinishedRun, split: str, wanted: str, rng: np.random.Generator) -> int:
    """The row in its split of the mention with id `wanted`, or of one drawn by `rng`.

    Raises:
        UserError: no such id (naming its split or the nearest ones), or no wrong mention to draw.
    """
    n = run.store.check_split(split)
    if wanted == RANDOM:
        return int(rng.integers(n))
    if wanted == RANDOM_WRONG:
        wrong = np.flatnonzero(outcome(run, split).wrong)
        if not len(wrong):
            raise UserError(f"{run.workdir} has no mention of {split} wrong; try --mention=random")
        return int(rng.choice(wrong))
    ids = mention_ids(run, split)
    if wanted in ids:
        return ids.index(wanted)
    for other in SPLITS:
        if other != split and run.store.splits[other] and wanted in mention_ids(run, other):
            raise UserError(
                f"mention {wanted!r} is in {other}, not in {split}; add --split={other}"
            )
    nearest = [found for found, _, _ in process.extract(wanted, ids, limit=NEAREST)]
    raise UserError(
        f"{split} has no mention {wanted!r}; the nearest ids are {', '.join(nearest)} "
        "(--list=20 lists some)"
    )
