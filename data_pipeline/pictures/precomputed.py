"""Precomputed picture features: what a user's own ResNet, detector and CLIP made of the pictures.

One `.npz` file beside the data set's JSONL files, P pictures and T texts:

    path          [P] str       picture, as in the JSONL files (relative to the folder of the .npz)
    pooled        [P, v]        pooled vector of the picture: the image vertex, [4] and [5]
    objects       [P, k, v']    features of its k best objects
    object_score  [P, k]        their detector scores, at least 0; 0: no such object
    clip_image    [P, c]        CLIP's projected image vector
    text          [T] str       a mention's sentence or an entity's description, to the letter
    clip_text     [T, c]        CLIP's projected text vector

A picture that is not listed is a missing one; an edge whose vector is missing is 0.
"""

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from data_pipeline.schema import UserError
from data_pipeline.store.split_arrays import unit

# Name -> its axes: sizes of one symbol are the same everywhere.
KEYS = {"path": "P", "text": "T"}
ARRAYS = {
    **{"pooled": "P v", "objects": "P k v'", "object_score": "P k"},
    **{"clip_image": "P c", "clip_text": "T c"},
}


@dataclasses.dataclass(frozen=True)
class Precomputed:
    """Checked features, float32, and look-ups of the pictures and texts they belong to."""

    path: list[str]
    pooled: np.ndarray
    objects: np.ndarray
    object_score: np.ndarray
    clip_image: np.ndarray
    text: list[str]
    clip_text: np.ndarray

    def image_rows(self, paths: Sequence[str | None]) -> np.ndarray:
        """Rows [n] int64 of these pictures, -1 for None and for one without features."""
        return _rows(self.path, [None if p is None else os.path.normpath(p) for p in paths])

    def text_rows(self, texts: Sequence[str | None]) -> np.ndarray:
        """Rows [n] int64 of these texts, -1 for None and for one without a vector."""
        return _rows(self.text, texts)

    @cached_property
    def unit_clip_image(self) -> np.ndarray:
        """CLIP's image vectors [P, c] at unit length."""
        return unit(self.clip_image)

    @cached_property
    def unit_clip_text(self) -> np.ndarray:
        """CLIP's text vectors [T, c] at unit length."""
        return unit(self.clip_text)

    @cached_property
    def objects_mean(self) -> np.ndarray:
        """Score-weighted mean of the objects' unit vectors [P, v']: [11] is a product of two."""
        total = np.einsum("pk,pkv->pv", self.object_score, unit(self.objects))
        weight = self.object_score.sum(1, keepdims=True)
        return total / np.where(weight > 0, weight, 1)


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
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path}: not a whole .npz file of plain arrays ({error})") from None
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
    return Precomputed(path=strings["path"], text=strings["text"], **numbers)


def _rows(table: Sequence[str], keys: Sequence[str | None]) -> np.ndarray:
    row_of = {key: row for row, key in enumerate(table)}
    return np.array([-1 if key is None else row_of.get(key, -1) for key in keys], np.int64)
