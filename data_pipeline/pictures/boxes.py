"""Object boxes found elsewhere: a data set's own, or a user's own detector's.

`boxes.jsonl`, one line a picture, best box first:

    {"image": "images/a.png", "boxes": [[left, top, right, bottom], …], "scores": [0.98, …]}

Boxes count pixels of the upright picture (turned by its EXIF entry), right and bottom excluded;
scores are the detector's confidence, above 0. Pictures are paths relative to the file. A picture
that is not listed, or listed without boxes, has no objects: its edge vv is masked.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.readers import raw_files
from data_pipeline.schema import UserError

Boxes = tuple[np.ndarray, np.ndarray]  # [k, 4] and [k] float32


def load(path: Path, sources: dict[str, str]) -> dict[str, Boxes]:
    """Picture -> boxes and scores, best first.

    Raises:
        UserError: no such file; or, with file and line, what is wrong in it.
    """
    found: dict[str, Boxes] = {}
    for where, row in raw_files.json_lines(path, sources, ("image", "boxes", "scores")):
        name = raw_files.text(row["image"], '"image"', where, empty=False)
        picture = os.path.normpath(path.parent / name)
        if picture in found:
            raise UserError(f"{where}: {name!r} is given twice; keep one line a picture")
        boxes = _numbers(row["boxes"], (-1, 4), f'{where}: "boxes"')
        scores = _numbers(row["scores"], (-1,), f'{where}: "scores"')
        if len(boxes) != len(scores):
            raise UserError(f"{where}: {len(boxes)} boxes but {len(scores)} scores")
        if (scores <= 0).any() or (boxes[:, 2:] <= boxes[:, :2]).any():
            raise UserError(
                f"{where}: scores must be above 0, boxes [left, top, right, bottom] with left < "
                "right and top < bottom"
            )
        best = np.argsort(-scores, kind="stable")
        found[picture] = boxes[best], scores[best]
    return found


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        array = np.asarray(value, np.float32)
        if array.size == 0:
            return np.zeros((0, *shape[1:]), np.float32)
        if array.ndim != len(shape) or array.shape[1:] != shape[1:] or not np.isfinite(array).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        form = "[[left, top, right, bottom], …]" if len(shape) > 1 else "[score, …]"
        raise UserError(f"{what} must be {form}, finite numbers") from None
    return array
