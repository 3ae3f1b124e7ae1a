"""Mentions of a finished run: one by id, any, any that it has wrong, or another run's; and all that
are wrong, sorted into the kinds that can be told without reading them."""

from typing import Any

import numpy as np
from rapidfuzz import process

from data_pipeline.output import say
from data_pipeline.schema import SPLITS, UserError
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.explain.cases import Case, Outcome, ranked
from drin_jax.explain.sources import Sources
from drin_jax.workdir import FinishedRun

RANDOM, RANDOM_WRONG = "random", "random-wrong"
NEAREST = 4  # ids offered for an unknown one
# In the order in which they are asked: a mention's first kind is the first that applies. What no
# ranker could mend comes first, then what the mention or its gold lacks, then what is left to the
# model.
OUTSIDE = "no gold in the knowledge base (NIL or outside)"
NOT_RETRIEVED = "gold not retrieved"
SAME_TEXT = "same name and text as the winner"
NO_DESCRIPTION = "gold without description"
NO_PICTURE = "mention or gold without picture"
NEAR = "gold nearly tied with the winner"
OTHER = "everything else"
KINDS = (OUTSIDE, NOT_RETRIEVED, SAME_TEXT, NO_DESCRIPTION, NO_PICTURE, NEAR, OTHER)


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


def summary(run: FinishedRun, found: Outcome, sources: Sources, near: float) -> dict[str, Any]:
    """What `--json` writes: counts by kind (first and all that apply), then every wrong mention of
    the split with its kinds, in file order; None where there is no such entity or score.

    `SAME_TEXT` holds where gold and winner have one name and one text feature: no text that the
    model reads tells them apart. `NO_DESCRIPTION` holds where the encoder had no text, or the raw
    files (where they are at hand) have an empty description. `NO_PICTURE` is asked only of a store
    with pictures. `NEAR`: the gold's score is at most `near` below the best.

    Raises:
        UserError: no mention is wrong.
    """
    split = found.view.split
    rows = np.flatnonzero(found.wrong)
    if not len(rows):
        raise UserError(f"{run.workdir} has no mention of {split} wrong; there are no errors")
    store, view = run.store, found.view
    ids, surfaces = mention_ids(run, split), store.strings("mention_surface")
    entities, names = store.strings("entity_id"), store.strings("entity_name")
    text, has_text = store.array("entity_text"), store.array("entity_has_text")
    pictured, own_picture = store.array("entity_has_image"), store.array("mention_has_image")
    wrong: list[dict[str, Any]] = []
    for row in map(int, rows):
        mention, gold = int(store.array(f"{split}_mention")[row]), int(view.gold_entity[row])
        slot, gold_slot = int(found.predicted[row]), int(view.gold[row])
        winner = int(store.array(f"{split}_candidates")[row, slot]) if slot >= 0 else None
        best = float(found.scores[row, slot]) if slot >= 0 else None
        own = float(found.scores[row, gold_slot]) if gold_slot >= 0 else None
        known = gold >= 0
        same_name = known and winner not in (None, gold) and names[gold] == names[winner]
        told = known and entities[gold] in sources.entities
        bare = told and not sources.description(entities[gold])
        applies = {
            OUTSIDE: not known,
            NOT_RETRIEVED: known and gold_slot < 0,
            SAME_TEXT: same_name and np.array_equal(text[gold], text[winner]),
            NO_DESCRIPTION: known and (bare or not has_text[gold]),
            NO_PICTURE: store.sizes["image_width"] > 0
            and not (own_picture[mention] and (not known or pictured[gold])),
            NEAR: own is not None and best is not None and best - own <= near,
        }
        wrong.append(
            {
                "id": ids[row],
                "surface": surfaces[mention],
                "gold": entities[gold] if known else None,
                "gold_name": names[gold] if known else None,
                "gold_score": own,
                "predicted": None if winner is None else entities[winner],
                "predicted_name": None if winner is None else names[winner],
                "predicted_score": best,
                "kinds": [kind for kind in KINDS if applies.get(kind)] or [OTHER],
            }
        )
    return {
        "workdir": str(run.workdir),
        "system": run.system,
        "protocol": run.protocol,
        "split": split,
        "near": near,
        "without_raw_files": sources.missing,
        "mentions": store.splits[split],
        "wrong": len(wrong),
        "kinds": [
            {
                "kind": kind,
                "first": sum(w["kinds"][0] == kind for w in wrong),
                "all": sum(kind in w["kinds"] for w in wrong),
            }
            for kind in KINDS
        ],
        "wrong_mentions": wrong,
    }
