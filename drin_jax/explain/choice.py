"""Which mention of a finished run: by id, any, any that it has wrong, or another run's."""

import numpy as np
from rapidfuzz import process

from data_pipeline.progress import say
from data_pipeline.schema import SPLITS, UserError
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.explain.cases import Case, Outcome, ranked
from drin_jax.workdir import FinishedRun

RANDOM, RANDOM_WRONG = "random", "random-wrong"
NEAREST = 4  # ids offered for an unknown one


def outcome(run: FinishedRun, split: str) -> Outcome:
    """The run's ranking of every mention of the split."""
    n = run.store.check_split(split)
    say(f"ranking {n} mentions of {split}")
    return Outcome(SplitView.of(run.store, split, run.setup.spec.r), run.scores(split))


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


def same_mention(other: FinishedRun, run: FinishedRun, case: Case) -> Case:
    """What another run over the same data makes of the case's mention.

    Raises:
        UserError: the other run knows no such mention, or it is not the same one.
    """
    ids = mention_ids(other, case.split)
    if other.store.name == run.store.name and case.id in ids:
        [found] = ranked(other, case.split, [ids.index(case.id)])
        if found.surface == case.surface:
            return found
    raise UserError(
        f"--against {other.workdir}: made from other data ({other.store.name}), whose {case.split} "
        f"split has no mention {case.id!r} of {case.surface!r}; give a run over the same data"
    )
