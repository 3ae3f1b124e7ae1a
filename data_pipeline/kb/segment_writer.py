"""A segment of a knowledge base, written."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.arrays import array_file
from data_pipeline.arrays.growing import GrowingFolder, write_array
from data_pipeline.files import write_whole
from data_pipeline.kb import rows
from data_pipeline.kb.knowledge_base import DEAD, FORM, ROWS, Segment
from data_pipeline.schema import ENTITY_ARRAYS, UserError


class SegmentWriter(GrowingFolder):
    """Makes one segment. Its features, if it is to have any, are written by whoever fills it.

    Args:
        added: the rows that it adds.
    """

    FORM = FORM

    def __init__(self, folder: Path, added: pa.Table, made_from: Mapping[str, Any]):
        self._rows, self.digest = added, rows.digest(added)
        # Where pictures lie counts here: a leftover may hold the features of others.
        shown = rows.digest_of_images(added)
        super().__init__(folder, {"rows": self.digest, "images": shown, **made_from})

    def _refuse_existing(self) -> None:
        """One that was whole when its writer was killed, and that kb.json does not name, goes on
        growing."""
        if self.path.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            os.rename(self.path, self.folder)

    def _check(self, name: str, shape: Sequence[int], dtype: str) -> None:
        symbols, right = ENTITY_ARRAYS.get(name, ("", ""))
        fits = dtype == right or (right == "float32" and dtype == "float16")
        if not fits or len(shape) != len(symbols.split()) or shape[0] != self._rows.num_rows:
            raise UserError(
                f"{self.folder}: {name} is {dtype} {list(shape)}, but must be "
                f"{right or 'no table of a knowledge base'} [{symbols}] of {self._rows.num_rows}"
            )

    def finish(self, dead: np.ndarray) -> Segment:
        """The segment, whole and in its place; kb.json does not know it yet.

        Raises:
            UserError: a table holds a value that is not finite, or the disk is full.
        """
        write_whole(self.folder / ROWS, lambda file: rows.put(file, self._rows))
        names = [DEAD, *(name for name in ENTITY_ARRAYS if self.has(name))]
        dead_file = self._file(DEAD)
        write_array(dead_file, np.sort(dead.astype(np.int64)))
        found = {name: array_file.read_header(self._file(name)) for name in names}
        arrays = {name: array_file.Spec(**spec) for name, spec in self._summed(found).items()}
        count, number = self._rows.num_rows, int(self.path.name)
        spec = rows_file(self.folder, count)
        self._appear([ROWS, *(f"{name}.npy" for name in names)])
        return Segment(number, count, len(dead), self.digest, spec, arrays)


def rows_file(folder: Path, count: int) -> array_file.Spec:
    """What kb.json says of the file of so many rows in a segment's folder."""
    path = folder / ROWS
    crc = array_file.crc32(path, lambda n: None)
    return array_file.Spec((count,), "arrow", path.stat().st_size, crc)
