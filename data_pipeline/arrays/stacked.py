"""One array of several files: their rows one after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Stacked:
    """The rows of `parts`, arrays that differ in their numbers of rows alone, read-only.

    Nothing is copied before it is asked for: by a slice or by rows, as a memory map is asked.
    Floats are float32, however they are kept.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        kept = parts[0].dtype
        self.dtype = np.dtype(np.float32) if kept == np.float16 else kept
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.concatenate([np.asarray(part, self.dtype) for part in self._parts])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        asked = np.asarray(rows)
        if asked.dtype == bool:
            asked = np.flatnonzero(asked)
        flat = np.where(asked < 0, asked + len(self), asked).ravel()
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"row {int(flat.max())} of {len(self)}")
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(owner).tolist():
            own = owner == number
            begin = self._ends[number] - len(self._parts[number])
            out[own] = self._parts[number][flat[own] - begin]
        return out.reshape(*asked.shape, *self.shape[1:])


def stacked(parts: Sequence[np.ndarray]) -> Any:
    """The rows of `parts`; of one alone, itself, where it is not of half precision."""
    kept = [part for part in parts if len(part)] or list(parts[:1])
    if len(kept) == 1 and kept[0].dtype != np.float16:
        return kept[0]
    return Stacked(kept)
