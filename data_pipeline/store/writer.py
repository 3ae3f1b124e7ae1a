"""The feature store, written: array by array, resumable after a kill at any moment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.arrays.array_file import Header, read_header
from data_pipeline.arrays.growing import GrowingFolder, tidy
from data_pipeline.files import plain, write_json
from data_pipeline.schema import SCHEMA_VERSION, STORE_JSON, STRING_TABLES, TEMPLATES, UserError
from data_pipeline.store import layout
from data_pipeline.store.split_arrays import offsets_of


class StoreWriter(GrowingFolder):
    """Makes the store `path`, going on with what a killed writer of the same settings left.

    Args:
        path: folder of the store to be; it must not exist.
        made_from: JSON of the settings that decide what the store holds (encoders, templates,
            poolings, retrieval, hashes of the sources). A leftover of others is discarded.

    Raises:
        UserError: `path` exists, another process writes it, or the place cannot be written.
    """

    FORM = SCHEMA_VERSION

    def _check(self, name: str, shape: Sequence[int], dtype: str) -> None:
        layout.check_one(name, shape, dtype, str(self.folder))

    def has(self, name: str) -> bool:
        """Whether this array, or this table of strings, is finished."""
        if name in STRING_TABLES:
            return self.has(f"{name}_offsets") and self.has(f"{name}_bytes")
        return super().has(name)

    def write_strings(self, name: str, strings: Sequence[str]) -> None:
        """Write one of `schema.STRING_TABLES`."""
        pieces = []
        for row, string in enumerate(strings):
            try:
                pieces.append(string.encode())
            except UnicodeEncodeError:
                raise UserError(f"{name} {row}: {string!r} is not valid Unicode") from None
        self.write(f"{name}_bytes", np.frombuffer(b"".join(pieces), np.uint8))
        self.write(f"{name}_offsets", offsets_of([len(piece) for piece in pieces]))

    def finish(self, name: str, groups: Sequence[str], report: Mapping[str, Any]) -> None:
        """Check everything, write store.json, and let the store appear.

        Args:
            name: of the data set.
            groups: names of the bits of the `groups` arrays.
            report: JSON of what was counted.

        Raises:
            UserError: an array is missing, disagrees with the schema or another, points outside its
                table, or holds a float that is not finite.
        """
        where = str(self.folder)
        found = self._found()
        sizes, splits = layout.resolve({name: h.form for name, h in found.items()}, where)
        layout.check_content(self.array, sizes, groups, where)
        entries = self._summed(found)
        meta = {
            "schema": SCHEMA_VERSION,
            "name": name,
            "sizes": sizes,
            "splits": splits,
            "groups": list(groups),
            "made_from": self._made_from,
            "report": plain(dict(report)),
            "arrays": entries,
        }
        write_json(self.folder / STORE_JSON, meta)
        self._appear([STORE_JSON, *(f"{array}.npy" for array in found)])
        tidy(self.path)
        self.close()

    def _found(self) -> dict[str, Header]:
        """The arrays that are finished."""
        return {name: read_header(self._file(name)) for name in TEMPLATES if self.has(name)}
