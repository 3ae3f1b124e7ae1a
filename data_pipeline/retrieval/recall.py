"""Recall of stage one: for which share of the mentions the gold is among the first k candidates.

End to end: a mention whose gold is outside the knowledge base is a miss, whoever retrieves; NIL
mentions have no gold to find and are left out, and counted.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipeline.schema import NIL, OUTSIDE_KB, Corpus, UserError
from data_pipeline.store import split_arrays

CLEAN = "test, clean"  # test mentions that share nothing with a mention of another split


@dataclasses.dataclass(frozen=True)
class Recall:
    """One subset of the mentions.

    `asked` mentions have a gold and are the denominator of `share` (k -> recall, 0 to 1);
    `outside` of them have it outside the knowledge base; `nil` others have none.
    """

    asked: int
    outside: int
    nil: int
    share: Mapping[int, float]


def recall(rows: np.ndarray, gold_rows: np.ndarray, ks: Sequence[int]) -> Recall:
    """Recall at each k.

    Args:
        rows: [N,r] candidates, best first.
        gold_rows: [N] row of the gold, NIL or OUTSIDE_KB.
        ks: each 1 to r: beyond the last candidate nothing is known.

    Raises:
        UserError: a k out of range, or no mention with a gold.
    """
    width = rows.shape[1]
    wrong = [k for k in ks if not 1 <= k <= width]
    if wrong:
        raise UserError(f"recall@{wrong[0]} cannot be told from {width} candidates of a mention")
    asked = gold_rows != NIL
    n = int(asked.sum())
    if not n:
        raise UserError("recall of no mention: none has a gold; use another split")
    hit = (rows == gold_rows[:, None]) & (gold_rows >= 0)[:, None]
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1), width)
    return Recall(
        asked=n,
        outside=int((gold_rows == OUTSIDE_KB).sum()),
        nil=len(gold_rows) - n,
        share={k: int((rank < k).sum()) / n for k in ks},
    )


def table(corpus: Corpus, rows: np.ndarray, ks: Sequence[int]) -> dict[str, Recall]:
    """Recall on valid, on test, and on the clean mentions of test; subsets without a gold are left
    out. `rows` [N,r] are candidates of `corpus.mentions`."""
    row_of = {entity.id: row for row, entity in enumerate(corpus.entities)}
    gold_rows = split_arrays.golds(corpus.mentions, row_of, rows)["gold_entity"]
    split = np.array([mention.split for mention in corpus.mentions])
    clean = np.array([mention.clean for mention in corpus.mentions])
    subsets = {"valid": split == "valid", "test": split == "test"}
    subsets[CLEAN] = subsets["test"] & clean
    return {
        name: recall(rows[chosen], gold_rows[chosen], ks)
        for name, chosen in subsets.items()
        if (gold_rows[chosen] != NIL).any()
    }
