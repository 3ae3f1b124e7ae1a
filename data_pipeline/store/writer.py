"""The feature store, written: array by array, resumable after a kill at any moment.

Everything grows in the sibling folder `STORE.partial`, which becomes `STORE` by one rename when it
is whole and checked. Inside it, too, every file appears under its name only when it is finished:

    made_from.json          the settings: a leftover of others is discarded
    lock                    held (flock) by the one process that writes
    NAME.npy                a finished array
    NAME.npy.shards         an array that grows (`ShardTable`), its finished shards listed in
    NAME.shards.json
    scratch_NAME.*          an array that is only needed on the way
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from data_pipeline.files import hold, plain, sync_folder, write_json, write_whole
from data_pipeline.schema import (
    SAME_AS,
    SCHEMA_VERSION,
    STORE_JSON,
    STRING_TABLES,
    TEMPLATES,
    UserError,
)
from data_pipeline.store import arrays, layout
from data_pipeline.store.split_arrays import offsets_of

MADE_FROM = "made_from.json"
LOCK = "lock"


def tidy(path: Path) -> None:
    """Remove what a writer that was killed in its last moment left in the store it had made."""
    for leftover in (MADE_FROM, LOCK):
        with contextlib.suppress(OSError):
            (path / leftover).unlink()


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
        write_whole(self._growing, self._write_blank)
        self._write_plan(set())
        return set()

    def _write_blank(self, file: BinaryIO) -> None:
        """The header, and the file's whole length."""
        descr = np.lib.format.dtype_to_descr(self._dtype)
        fields = {"descr": descr, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(file, fields)
        file.truncate(file.tell() + math.prod(self._shape) * self._dtype.itemsize)

    def _write_plan(self, done: set[int]) -> None:
        write_json(self._plan, {"rows": self._step, "done": sorted(done)})

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


class StoreWriter:
    """Makes the store `path`, going on with what a killed writer of the same settings left.

    Args:
        path: folder of the store to be; it must not exist.
        made_from: JSON of the settings that decide what the store holds (encoders, templates,
            poolings, retrieval, hashes of the sources). A leftover of others is discarded.

    Raises:
        UserError: `path` exists, another process writes it, or the place cannot be written.
    """

    SUFFIX = ".partial"

    def __init__(self, path: str | Path, made_from: Mapping[str, Any]):
        self.path = Path(path)
        self.folder = self.path.with_name(self.path.name + self.SUFFIX)
        self._made_from = plain(dict(made_from))
        self._refuse_existing()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            raise UserError(f"{self.folder}: {error.strerror or error}") from error
        try:
            self._refuse_existing()  # another process may have finished it meanwhile
            self._adopt()
        except BaseException:
            self.close()
            raise

    def _refuse_existing(self) -> None:
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(f"{self.path}: exists already; delete it or give another data.store")

    def _take_lock(self) -> TextIO:
        name = self.folder / LOCK
        file = hold(name)
        # The winner renames the folder at the end: a lock on a lost name does not count.
        try:
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(name))
        except FileNotFoundError:
            held = False
        if not held:
            file.close()
            raise UserError(f"{self.path}: another process has just made it; run again")
        return file

    def _adopt(self) -> None:
        """Keep the leftover in the folder if it was made with these settings, else discard it."""
        settings = {"schema": SCHEMA_VERSION, "made_from": self._made_from}
        marker = self.folder / MADE_FROM
        ours = marker.exists()
        own = (LOCK, MADE_FROM, f"{MADE_FROM}.tmp")
        others = [file for file in self.folder.iterdir() if file.name not in own]
        for file in others:
            if file.is_dir() or not ours:
                raise UserError(
                    f"{file}: no writer of a store left it, but its folder is needed; move it away"
                )
        with contextlib.suppress(OSError, ValueError):
            if json.loads(marker.read_text("utf-8")) == settings:
                return
        if ours:
            note = f"{self.folder}: left over from other settings, discarded"
            print(note, file=sys.stderr, flush=True)
        for file in others:
            file.unlink()
        write_json(marker, settings)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def has(self, name: str) -> bool:
        """Whether this array, or this table of strings, is finished."""
        if name in STRING_TABLES:
            return self.has(f"{name}_offsets") and self.has(f"{name}_bytes")
        return self._file(name).exists()

    def array(self, name: str) -> np.memmap:
        """A finished array, read-only."""
        if not self.has(name):
            name = SAME_AS.get(name, name)
        if not self.has(name):
            raise UserError(f"{self._file(name)}: is not written yet")
        return arrays.open_array(self._file(name))

    def write(self, name: str, array: np.ndarray) -> None:
        """Write a whole array, over an older one of this name.

        Raises:
            UserError: unknown name, or another dtype or rank than `schema` says.
        """
        layout.check_one(name, array.shape, array.dtype.name, str(self.folder))
        native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
        save = np.lib.format.write_array
        write_whole(self._file(name), lambda file: save(file, native, allow_pickle=False))

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

    def shards(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        rows_per_shard: int,
        scratch: bool = False,
    ) -> ShardTable:
        """An array to be written shard by shard; finished shards of this layout are kept. One of
        `scratch` helps to make others and is no part of the store; gone when it is whole."""
        if scratch:
            return ShardTable(self.folder, f"scratch_{name}", shape, dtype, rows_per_shard)
        layout.check_one(name, shape, dtype, str(self.folder))
        if rows_per_shard < 1:
            raise UserError(f"{name}: {rows_per_shard} rows a shard; at least 1 is needed")
        return ShardTable(self.folder, name, shape, dtype, rows_per_shard)

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
        kept = {MADE_FROM, LOCK, *(f"{array}.npy" for array in found)}
        for file in self.folder.iterdir():
            if file.name not in kept:
                file.unlink()
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
        sync_folder(self.folder)
        os.rename(self.folder, self.path)
        sync_folder(self.path.parent)
        tidy(self.path)
        self.close()

    def _found(self) -> dict[str, arrays.Header]:
        """The arrays that are finished."""
        return {name: arrays.read_header(self._file(name)) for name in TEMPLATES if self.has(name)}

    def _summed(self, found: Mapping[str, arrays.Header]) -> dict[str, dict[str, Any]]:
        """Their entries in store.json. UserError on a float that is not finite."""
        entries = {}
        with arrays.watch("checking the features", sum(h.end for h in found.values())) as bar:
            for name, header in found.items():
                crc32, bad = arrays.checksum(self._file(name), header, bar.advance)
                if bad is not None:
                    where = self._file(name)
                    raise UserError(f"{where}: row {bad} holds a value that is not finite")
                entries[name] = dataclasses.asdict(arrays.Spec(*header.form, header.end, crc32))
        return entries

    def close(self) -> None:
        """Let another writer go on; what is finished stays."""
        self._lock.close()
