"""What some systems need, added to a finished store; resumable, and whole or not at all.

New arrays grow in the sibling folder `STORE.adding`, move into the store one by one, and count
from the moment store.json names them, which is replaced last. A kill before that leaves the store
as it was.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from data_pipeline import schema
from data_pipeline.arrays.growing import LOCK, MADE_FROM
from data_pipeline.files import plain, sync_folder, write_json
from data_pipeline.schema import STORE_JSON, UserError
from data_pipeline.store import layout
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter


class StoreExtension(StoreWriter):
    """Adds optional arrays (`schema.NEEDED_ARRAYS`) to `store`.

    Args:
        store: the open store.
        made_from: JSON of what decides the new arrays. A leftover of something else is discarded.

    Raises:
        UserError: another process adds to it, or the place cannot be written.
    """

    SUFFIX = ".adding"

    def __init__(self, store: Store, made_from: Mapping[str, Any]):
        self.store = store
        super().__init__(store.path, {"store": store.made_from, "adds": dict(made_from)}, store.kb)

    def _refuse_existing(self) -> None:
        """The store is there, and has to be."""

    def _adopt(self) -> None:
        """What a killed run had moved into the store, and store.json does not name, is here again
        as it was. UserError where the store is another by now."""
        if Store.open(self.path).specs != self.store.specs:
            if os.listdir(self.folder) == [LOCK]:  # nobody's beginning of something else
                (self.folder / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
            raise UserError(f"{self.path}: another process has just added to it; run again")
        if (self.folder / MADE_FROM).exists():
            for name in (name for need in schema.NEEDED_ARRAYS.values() for name in need):
                moved = self.path / self._file(name).name
                if name not in self.store.forms and moved.exists():
                    os.replace(moved, self._file(name))
        super()._adopt()

    def add(self, report: Mapping[str, Any]) -> Store:
        """Checks the new arrays and lets them appear; `report` joins the store's own.

        Returns:
            the store, opened anew.
        """
        found = self._found()
        forms = self.store.forms | {array: header.form for array, header in found.items()}
        layout.resolve(forms, str(self.folder))
        for need, arrays in schema.NEEDED_ARRAYS.items():
            if all(array in found for array in arrays):
                layout.check_needed(need, self.array, str(self.folder))
        entries = self._summed(found)
        meta = json.loads((self.path / STORE_JSON).read_text("utf-8"))
        meta["arrays"] |= entries
        meta["report"] |= plain(dict(report))
        for array in found:
            os.replace(self._file(array), self.path / self._file(array).name)
        sync_folder(self.path)
        write_json(self.path / STORE_JSON, meta)
        # A killed run may have left plans of shards and the like; what tells whose they are goes
        # last.
        for leftover in sorted(self.folder.iterdir(), key=lambda file: file.name == MADE_FROM):
            leftover.unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):  # another process has taken the folder over
            self.folder.rmdir()
        return Store.open(self.path)
