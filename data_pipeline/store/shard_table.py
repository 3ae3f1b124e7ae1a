"""One long array of a store, written shard by shard, resumable after a kill at any moment."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_pipeline import files
from data_pipeline.schema import UserError
from data_pipeline.store import arrays


class ShardTable:
    """An array that grows shard by shard in place; `StoreWriter.shards` makes one.

    Shard i holds the rows from `i * rows_per_shard` on; the last one may be shorter.
    """

    def __init__(
        self, folder: Path, name: str, shape: Sequence[int], dtype: str, rows_per_shard: int
    ):
        shape = tuple(map(int, shape))
        self._target = folder / f"{name}.npy"
        self._growing = folder / f"{name}.npy.shards"
        self._plan = folder / f"{name}.shards.json"
        self._shape, self._dtype, self._step = shape, np.dtype(dtype), rows_per_shard
        self.count = -(-shape[0] // rows_per_shard)
        if self._target.exists():
            if arrays.read_header(self._target).form == (shape, dtype):
                self._done = set(range(self.count))
                return
            self._target.unlink()
        self._done = self._resume()
        self._offset = arrays.read_header(self._growing).offset

    def _resume(self) -> set[int]:
        try:
            plan = json.loads(self._plan.read_text())
            same = arrays.read_header(self._growing).form == (self._shape, self._dtype.name)
            if same and plan["rows"] == self._step:
                return set(plan["done"])
        except (OSError, ValueError, KeyError, TypeError, UserError):
            pass
        self._plan.unlink(missing_ok=True)  # first: a list without its array would lie
        files.write_whole(self._growing, self._write_blank)
        self._write_plan(set())
        return set()

    def _write_blank(self, file: BinaryIO) -> None:
        """The header, and the file's whole length."""
        descr = np.lib.format.dtype_to_descr(self._dtype)
        fields = {"descr": descr, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(file, fields)
        file.truncate(file.tell() + math.prod(self._shape) * self._dtype.itemsize)

    def _write_plan(self, done: set[int]) -> None:
        files.write_json(self._plan, {"rows": self._step, "done": sorted(done)})

    def array(self) -> np.memmap:
        """The whole array, read-only, once it is finished."""
        return arrays.open_array(self._target)

    def missing(self) -> list[int]:
        """Shards that are still to be written."""
        return [index for index in range(self.count) if index not in self._done]

    def write(self, index: int, rows: np.ndarray) -> None:
        """Write a shard; one that is finished is left as it is.

        Raises:
            UserError: other rows than the shard's, another dtype, or a full disk.
        """
        begin = index * self._step
        shape = (min(self._step, self._shape[0] - begin), *self._shape[1:])
        if not 0 <= index < self.count or rows.shape != shape or rows.dtype != self._dtype:
            raise UserError(
                f"{self._target}: shard {index} of {self.count} is {rows.dtype} "
                f"{list(rows.shape)}, but must be {self._dtype} {list(shape)}"
            )
        if index in self._done:
            return
        row_bytes = math.prod(self._shape[1:]) * self._dtype.itemsize
        try:
            with self._growing.open("r+b") as file:
                file.seek(self._offset + begin * row_bytes)
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{self._growing}: cannot be written ({reason})") from error
        self._write_plan(self._done | {index})
        self._done.add(index)

    def finish(self) -> None:
        """The array is whole from here on. UserError if a shard is missing."""
        if self._target.exists():
            return
        if missing := self.missing():
            raise UserError(
                f"{self._target}: {len(missing)} of {self.count} shards are missing, "
                f"the first is {missing[0]}"
            )
        os.replace(self._growing, self._target)
        self._plan.unlink(missing_ok=True)
