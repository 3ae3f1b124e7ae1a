"""Scores of which the few first are put into another order by a second reading of them.

    s'_j = log softmax_j(s_j + w c_j) + log sum_i exp s_i        i, j: the candidates read again

What they have together stays as it was, and so what all others and "none of them" have.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.files import read_json
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store

FOLDER, ABOUT = "reranker", "reranker.json"  # in a workdir, and in that
SPLITS = ("valid", "test")
# In reports: behind a system's name, and the row beside it.
WITH, WITHOUT = " + reranker", "the same without the reranker"
AGAIN = "delete that folder to train it anew"


@dataclasses.dataclass(frozen=True)
class Reordering:
    """What a second reading said of a store's mentions.

    Attributes:
        weight: w above, 0 where it was of no use on valid.
        said: split -> c [n,r], NaN for a candidate that was not read again.
    """

    weight: float
    said: Mapping[str, np.ndarray]

    def scores(self, split: str, scores: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Scores [n,r] of these rows of a split, reordered."""
        return reordered(scores, self.said[split][rows], self.weight)


def reordered(scores: np.ndarray, said: np.ndarray, weight: float) -> np.ndarray:
    """s' [n,r] of s and c; s itself where c is NaN."""
    from scipy import special

    read = ~np.isnan(said)
    some = np.flatnonzero(read.any(1) & bool(weight))
    out = np.array(scores)
    own, there = np.asarray(scores, np.float64)[some], read[some]
    before = special.logsumexp(np.where(there, own, -np.inf), axis=1, keepdims=True)
    moved = np.where(there, own + weight * np.nan_to_num(said[some]), -np.inf)
    after = special.logsumexp(moved, axis=1, keepdims=True)
    out[some] = np.where(there, moved - after + before, own)
    return out


def read_about(folder: Path) -> dict[str, Any]:
    """`reranker.json` of a folder. UserError where it is missing or damaged."""
    missing = "is missing, so the reranker is not trained; start its run's command again"
    content: dict[str, Any] = read_json(folder / ABOUT, AGAIN, missing)
    if not isinstance(content.get("weight"), float) or not isinstance(content.get("of"), dict):
        raise UserError(f"{folder / ABOUT}: its 'weight' or 'of' is missing or odd; {AGAIN}")
    return content


def open_reordering(folder: Path, store: Store, r: int) -> Reordering:
    """What the reranker in a folder said of a store's mentions and their first r candidates.
    UserError where that is damaged."""
    said = {}
    about = read_about(folder)
    for split in SPLITS:
        path = folder / f"said_{split}.npy"
        try:
            said[split] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: unreadable ({error}); {AGAIN}") from None
        if said[split].shape != (store.splits[split], r) or said[split].dtype != np.float32:
            raise UserError(f"{path}: is of other mentions than the store's; {AGAIN}")
    return Reordering(about["weight"], said)
