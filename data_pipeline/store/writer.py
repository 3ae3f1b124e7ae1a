"""The feature store, written: array by array, resumable after a kill at any moment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.arrays.array_file import Header, read_header
from data_pipeline.arrays.growing import GrowingFolder, tidy
from data_pipeline.files import plain, write_json
from data_pipeline.kb.change import Change, Fill
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.schema import (
    ENTITY_ARRAYS,
    SCHEMA_VERSION,
    STORE_JSON,
    STRING_TABLES,
    TEMPLATES,
    Entity,
    UserError,
)
from data_pipeline.store import layout
from data_pipeline.store.split_arrays import offsets_of

KB = "kb"  # folder of a store's own knowledge base


class StoreWriter(GrowingFolder):
    """Makes the store `path`, going on with what a killed writer of the same settings left.

    A store's knowledge base comes first: its own (`build_kb`), or one that is there (`kb`).

    Args:
        path: folder of the store to be; it must not exist.
        made_from: JSON of the settings that decide what the store holds (encoders, templates,
            poolings, retrieval, hashes of the sources). A leftover of others is discarded.
        kb: the knowledge base that it refers to.

    Raises:
        UserError: `path` exists, another process writes it, or the place cannot be written.
    """

    FORM = SCHEMA_VERSION
    FOLDERS = (KB,)

    def __init__(
        self, path: str | Path, made_from: Mapping[str, Any], kb: KnowledgeBase | None = None
    ):
        self._kb = kb
        reference = {KB: kb.reference()} if kb is not None else {}
        super().__init__(path, {**made_from, **reference})
        self._stored_from = plain(dict(made_from))

    def build_kb(self, entities: Sequence[Entity], fill: Fill, **named: Any) -> KnowledgeBase:
        """The store's own knowledge base, of these entities; `fill` and `named` as `Change` and
        `Change.build` take them. One that a killed writer had finished is opened."""
        with Change(self.folder / KB, fill) as change:
            self._kb = change.build(entities, **named)
        return self._kb

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base that the store refers to."""
        if self._kb is None:
            raise UserError(f"{self.folder}: has no knowledge base yet")
        return self._kb

    def _check(self, name: str, shape: Sequence[int], dtype: str) -> None:
        layout.check_one(name, shape, dtype, str(self.folder))

    def has(self, name: str) -> bool:
        """Whether this array, or this table of strings, is finished."""
        if name in STRING_TABLES:
            return self.has(f"{name}_offsets") and self.has(f"{name}_bytes")
        return super().has(name)

    def array(self, name: str) -> Any:
        """A finished array, read-only; of the knowledge base too."""
        return self.kb.array(name) if name in ENTITY_ARRAYS else super().array(name)

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
        forms = self.kb.tables | {name: h.form for name, h in found.items()}
        sizes, splits = layout.resolve(forms, where)
        layout.check_content(self.array, sizes, groups, where)
        entries = self._summed(found)
        own = self.kb.path == self.folder / KB
        place = KB if own else self.kb.seen_from(self.path)
        meta = {
            "schema": SCHEMA_VERSION,
            "name": name,
            "sizes": sizes,
            "splits": splits,
            "groups": list(groups),
            "made_from": self._stored_from,
            "report": plain(dict(report)),
            "arrays": entries,
            KB: {"path": place, **self.kb.reference()},
        }
        write_json(self.folder / STORE_JSON, meta)
        kept = [KB] if own else []
        self._appear([STORE_JSON, *kept, *(f"{array}.npy" for array in found)])
        tidy(self.path)
        self.close()

    def _found(self) -> dict[str, Header]:
        """The arrays that are finished."""
        names = [name for name in TEMPLATES if name not in ENTITY_ARRAYS and self.has(name)]
        return {name: read_header(self._file(name)) for name in names}
