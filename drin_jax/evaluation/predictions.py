"""What a system answers for every mention of a split, as JSON lines.

{"id", "mention", "gold": id or null, "outside_kb": whether the gold is no entity of the knowledge
 base, "candidates": [{"id", "probability"}, …] best first, "nil_probability", "is_nil"}
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipeline.files import write_text
from data_pipeline.schema import NIL, OUTSIDE_KB
from data_pipeline.store.reader import Store
from drin_jax.evaluation.calibration import Calibration
from drin_jax.evaluation.evaluate import SplitView


def write(
    workdir: Path, store: Store, view: SplitView, scores: np.ndarray, calibration: Calibration
) -> Path:
    """Writes `predictions_SPLIT.jsonl` to the workdir.

    Args:
        view: of a split of the store.
        scores: [n,r] of its mentions.
    """
    path = workdir / f"predictions_{view.split}.jsonl"
    write_text(path, "".join(f"{line}\n" for line in _lines(store, view, scores, calibration)))
    return path


def _lines(
    store: Store, view: SplitView, scores: np.ndarray, calibration: Calibration
) -> Iterator[str]:
    ids, names, surfaces = (
        store.strings(name) for name in ("entity_id", "mention_id", "mention_surface")
    )
    rows = np.asarray(store.array(f"{view.split}_candidates"))
    probabilities = calibration.probabilities(scores, view.candidates)
    decided, _ = calibration.decide(probabilities)
    order = np.argsort(-np.where(view.candidates, scores, -np.inf), axis=1, kind="stable")
    for i, mention in enumerate(np.asarray(store.array(f"{view.split}_mention")).tolist()):
        gold = int(view.gold_entity[i])
        best = order[i][: int(view.candidates[i].sum())]
        line = {
            "id": names[mention],
            "mention": surfaces[mention],
            "gold": ids[gold] if gold >= 0 else None,
            "outside_kb": gold == OUTSIDE_KB,
            "candidates": [
                {"id": ids[rows[i, slot]], "probability": round(float(probabilities[i, slot]), 6)}
                for slot in best.tolist()
            ],
            "nil_probability": round(float(probabilities[i, -1]), 6),
            "is_nil": bool(decided[i] == NIL),
        }
        yield json.dumps(line, ensure_ascii=False)
