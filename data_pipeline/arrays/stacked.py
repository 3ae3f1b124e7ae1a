"""Arrays [n, …] that are asked for rows, read-only, as a memory map is: by a slice, by numbers, or
as a whole. Floats are float32, however they are kept."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np


class RowArray(abc.ABC):
    """One of this shape and kept dtype, of which nothing is read before it is asked for."""

    def __init__(self, shape: Sequence[int], kept: Any):
        self.shape, self.ndim, self._kept = tuple(shape), len(shape), np.dtype(kept)
        self.dtype = np.dtype(np.float32) if self._kept == np.float16 else self._kept

    @abc.abstractmethod
    def _rows(self, flat: np.ndarray) -> np.ndarray:
        """The rows [k, …] of these numbers [k], which are there."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        asked = np.asarray(rows)
        if asked.dtype == bool:
            asked = np.flatnonzero(asked)
        flat = np.where(asked < 0, asked + len(self), asked).ravel()
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"row {int(flat.max())} of {len(self)}")
        return self._rows(flat).reshape(*asked.shape, *self.shape[1:])


class Stacked(RowArray):
    """The rows of `parts`, arrays that differ in their numbers of rows alone."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        super().__init__((int(self._ends[-1]), *parts[0].shape[1:]), parts[0].dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate([np.asarray(part, dtype or self.dtype) for part in self._parts])

    def _rows(self, flat: np.ndarray) -> np.ndarray:
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(owner).tolist():
            own = owner == number
            begin = self._ends[number] - len(self._parts[number])
            out[own] = self._parts[number][flat[own] - begin]
        return out


def stacked(parts: Sequence[np.ndarray]) -> Any:
    """The rows of `parts`; of one alone, itself, where it is not of half precision."""
    kept = [part for part in parts if len(part)] or list(parts[:1])
    if len(kept) == 1 and kept[0].dtype != np.float16:
        return kept[0]
    return Stacked(kept)
