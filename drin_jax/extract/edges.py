"""The graphs' initial edges from the store's tables: R_tt [6], R_tv [7], R_vt [8], R_vv [11]."""

from collections.abc import Callable

import numpy as np

from data_pipeline.store import split_arrays

PAIRS = 1 << 14  # mention-candidate pairs at once: 270 MB of the widest tables

# Table of the mention, table of the entity; rows are of unit length, or means of such for vv.
ENDS = {
    1: ("mention_clip_text", "entity_clip_image"),
    2: ("mention_clip_image", "entity_clip_text"),
    3: ("mention_objects", "entity_objects"),
}


def edges(
    table: Callable[[str], np.ndarray], mentions: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Initial edges [n, 4, r] in the order of `schema.RELATIONS`; 0 where an end is missing.

    Every text and picture was encoded once; here it is one batched product a relation.

    Args:
        table: the store's array of a name.
        mentions: [n] rows of the mention tables.
        candidates: [n, r] rows of the entity tables; below 0 for none.
    """
    n, r = candidates.shape
    out = np.zeros((n, 4, r), np.float32)
    step = max(1, PAIRS // max(r, 1))
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        own, others = mentions[rows], np.maximum(candidates[rows], 0)
        left, right = table("mention_text_edge"), table("entity_text_edge")
        out[rows, 0] = split_arrays.cosine(left[own][:, None], right[others])
        for relation, (mine, theirs) in ENDS.items():
            left, right = table(mine), table(theirs)
            if left.shape[1] and right.shape[1]:
                out[rows, relation] = (right[others] @ left[own][:, :, None])[..., 0]
    return np.where((candidates >= 0)[:, None], out, 0)
