"""The wrong mentions of a split, sorted into the kinds that can be told without reading them."""

import dataclasses
from typing import Any

import numpy as np

from data_pipeline.schema import UserError
from drin_jax.explain.cases import Outcome
from drin_jax.explain.choice import mention_ids
from drin_jax.explain.sources import Sources
from drin_jax.workdir import FinishedRun

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


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A mention whose gold is not ranked first. `kinds` are all that apply, in the order of KINDS;
    ids and names are None where there is no such entity or score."""

    id: str
    surface: str
    gold: str | None
    gold_name: str | None
    gold_score: float | None
    predicted: str | None
    predicted_name: str | None
    predicted_score: float | None
    kinds: tuple[str, ...]


def wrong_mentions(run: FinishedRun, split: str, found: Outcome, sources: Sources, near: float
                   ) -> list[Wrong]:  # fmt: skip
    """Every wrong mention of the split with its kinds, in file order.

    `SAME_TEXT` holds where gold and winner have one name and one text feature: no text that the
    model reads tells them apart. `NO_DESCRIPTION` holds where the encoder had no text, or the raw
    files (where they are at hand) have an empty description. `NO_PICTURE` is asked only of a store
    with pictures. `NEAR`: the gold's score is at most `near` below the best.

    Raises:
        UserError: no mention is wrong.
    """
    rows = np.flatnonzero(found.wrong)
    if not len(rows):
        raise UserError(f"{run.workdir} has no mention of {split} wrong; there are no errors")
    table = _Table(run, split, found, sources, near)
    return [table.wrong(int(row)) for row in rows]


class _Table:
    """Arrays and names that every wrong mention is looked up in."""

    def __init__(self, run: FinishedRun, split: str, found: Outcome, sources: Sources, near: float):
        store = run.store
        self.store, self.found, self.sources, self.near = store, found, sources, near
        self.ids = mention_ids(run, split)
        self.mention = store.array(f"{split}_mention")
        self.candidates = store.array(f"{split}_candidates")
        self.surfaces = store.strings("mention_surface")
        self.entity_ids, self.names = store.strings("entity_id"), store.strings("entity_name")
        self.pictures = store.sizes["image_width"] > 0

    def wrong(self, row: int) -> Wrong:
        view, scores = self.found.view, self.found.scores[row]
        slot, gold_slot = int(self.found.predicted[row]), int(view.gold[row])
        winner = int(self.candidates[row, slot]) if slot >= 0 else None
        gold = int(view.gold_entity[row])
        known = gold >= 0
        best = float(scores[slot]) if slot >= 0 else None
        own = float(scores[gold_slot]) if gold_slot >= 0 else None
        applies = {
            OUTSIDE: not known,
            NOT_RETRIEVED: known and gold_slot < 0,
            SAME_TEXT: known and winner is not None and self._same_text(gold, winner),
            NO_DESCRIPTION: known and self._bare(gold),
            NO_PICTURE: self.pictures and self._without_picture(row, gold),
            NEAR: own is not None and best is not None and best - own <= self.near,
        }
        return Wrong(
            id=self.ids[row],
            surface=self.surfaces[int(self.mention[row])],
            gold=self.entity_ids[gold] if known else None,
            gold_name=self.names[gold] if known else None,
            gold_score=own,
            predicted=None if winner is None else self.entity_ids[winner],
            predicted_name=None if winner is None else self.names[winner],
            predicted_score=best,
            kinds=tuple(kind for kind in KINDS if applies.get(kind)) or (OTHER,),
        )

    def _same_text(self, gold: int, winner: int) -> bool:
        text = self.store.array("entity_text")
        return (
            gold != winner
            and self.names[gold] == self.names[winner]
            and bool(np.array_equal(text[gold], text[winner]))
        )

    def _bare(self, gold: int) -> bool:
        if not self.store.array("entity_has_text")[gold]:
            return True
        known = self.entity_ids[gold] in self.sources.entities
        return known and not self.sources.description(self.entity_ids[gold])

    def _without_picture(self, row: int, gold: int) -> bool:
        own = bool(self.store.array("mention_has_image")[int(self.mention[row])])
        return not own or (gold >= 0 and not self.store.array("entity_has_image")[gold])


def summary(run: FinishedRun, split: str, wrong: list[Wrong], near: float, missing: str
            ) -> dict[str, Any]:  # fmt: skip
    """What `--json` writes: counts by kind (first and all that apply), then every wrong mention."""
    return {
        "workdir": str(run.workdir),
        "system": run.system,
        "protocol": run.protocol,
        "split": split,
        "near": near,
        "without_raw_files": missing,
        "mentions": run.store.splits[split],
        "wrong": len(wrong),
        "kinds": [
            {
                "kind": kind,
                "first": sum(w.kinds[0] == kind for w in wrong),
                "all": sum(kind in w.kinds for w in wrong),
            }
            for kind in KINDS
        ],
        "wrong_mentions": [dataclasses.asdict(w) for w in wrong],
    }
