"""What was made of the pictures elsewhere: features by a user's own ResNet, detector and CLIP, or
the boxes of objects that a data set or a user's own detector gives.

One `.npz` file beside the data set's JSONL files, P pictures and T texts:

    path          [P] str       picture, as in the JSONL files (relative to the folder of the .npz)
    pooled        [P, v]        pooled vector of the picture: the image vertex, [4] and [5]
    objects       [P, k, v']    features of its k best objects
    object_score  [P, k]        their detector scores, at least 0; 0: no such object
    clip_image    [P, c]        CLIP's projected image vector
    text          [T] str       a mention's sentence or an entity's description, to the letter
    clip_text     [T, c]        CLIP's projected text vector

A picture that is not listed is a missing one; an edge whose vector is missing is 0.

`boxes.jsonl`, one line a picture, best box first:

    {"image": "images/a.png", "boxes": [[left, top, right, bottom], …], "scores": [0.98, …]}

Boxes count pixels of the upright picture (turned by its EXIF entry), right and bottom excluded;
scores are the detector's confidence, above 0. Pictures are paths relative to the file. A picture
that is not listed, or listed without boxes, has no objects: its edge vv is masked.
"""

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.readers import raw_files
from data_pipeline.schema import UserError
from data_pipeline.store.split_arrays import unit

Boxes = tuple[np.ndarray, np.ndarray]  # [k, 4] and [k] float32
# Name -> its axes: sizes of one symbol are the same everywhere.
KEYS = {"path": "P", "text": "T"}
ARRAYS = {
    **{"pooled": "P v", "objects": "P k v'", "object_score": "P k"},
    **{"clip_image": "P c", "clip_text": "T c"},
}


@dataclasses.dataclass(frozen=True)
class Precomputed:
    """Checked features, float32, ready for the edges, of the pictures and texts they belong to.

    Attributes:
        path, text: the pictures and texts.
        pooled: [P, v].
        objects_mean: [P, v'] score-weighted mean of the objects' unit vectors: [11] is a product of
            two.
        unit_clip_image, unit_clip_text: [P, c] and [T, c] CLIP's vectors at unit length.
    """

    path: list[str]
    text: list[str]
    pooled: np.ndarray
    objects_mean: np.ndarray
    unit_clip_image: np.ndarray
    unit_clip_text: np.ndarray

    def image_rows(self, paths: Sequence[str | None]) -> np.ndarray:
        """Rows [n] int64 of these pictures, -1 for None and for one without features."""
        return _rows(self.path, [None if p is None else os.path.normpath(p) for p in paths])

    def text_rows(self, texts: Sequence[str | None]) -> np.ndarray:
        """Rows [n] int64 of these texts, -1 for None and for one without a vector."""
        return _rows(self.text, texts)


def load(path: str | Path) -> Precomputed:
    """Reads and checks a file of the form above.

    Raises:
        UserError: no such file or no .npz; or, with the array's name, an array that is missing, has
            the wrong axes, type or length, is not finite, or a key that is given twice.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in (*KEYS, *ARRAYS)}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; encoders.pictures names the .npz file") from None
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError):
        raise UserError(f"{path}: not a whole .npz file of plain arrays") from None
    known: dict[str, tuple[int, str]] = {}
    for name, axes in (KEYS | ARRAYS).items():
        if name not in arrays:
            raise UserError(
                f"{path}: array {name!r} is missing; see data_pipeline/pictures/precomputed.py"
            )
        array, symbols = arrays[name], axes.split()
        kind, what = ("U", "str") if name in KEYS else ("f", "floats")
        if array.ndim != len(symbols) or array.dtype.kind != kind:
            wanted = "one axis" if len(symbols) == 1 else f"{len(symbols)} axes"
            raise UserError(
                f"{path}: array {name!r} must be {wanted} of {what}, not {list(array.shape)} "
                f"{array.dtype}"
            )
        for symbol, size in zip(symbols, array.shape, strict=True):
            right, source = known.setdefault(symbol, (size, name))
            if size != right:
                raise UserError(
                    f"{path}: array {name!r} has {symbol} = {size}, but {source!r} has {right}"
                )
    strings = {name: arrays[name].tolist() for name in KEYS}
    numbers = {name: np.ascontiguousarray(arrays[name], np.float32) for name in ARRAYS}
    for name, array in numbers.items():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
        if len(bad):
            raise UserError(f"{path}: array {name!r} is not finite in row {bad[0]}")
    if (numbers["object_score"] < 0).any():
        raise UserError(f"{path}: array 'object_score' has values below 0")
    strings["path"] = [os.path.normpath(path.parent / one) for one in strings["path"]]
    for name, values in strings.items():
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise UserError(f"{path}: array {name!r} holds {twice!r} twice")
    score = numbers["object_score"]
    weight = score.sum(1, keepdims=True)
    total = np.einsum("pk,pkv->pv", score, unit(numbers["objects"]))
    return Precomputed(
        **strings,
        pooled=numbers["pooled"],
        objects_mean=total / np.where(weight > 0, weight, 1),
        unit_clip_image=unit(numbers["clip_image"]),
        unit_clip_text=unit(numbers["clip_text"]),
    )


def _rows(table: Sequence[str], keys: Sequence[str | None]) -> np.ndarray:
    row_of = {key: row for row, key in enumerate(table)}
    return np.array([-1 if key is None else row_of.get(key, -1) for key in keys], np.int64)


def load_boxes(path: Path, sources: dict[str, str]) -> dict[str, Boxes]:
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
