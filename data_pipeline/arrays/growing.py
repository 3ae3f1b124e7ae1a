"""A folder of arrays in the making: array by array, resumable after a kill at any moment.

Everything grows in the sibling folder `NAME.partial`, which becomes `NAME` by one rename when it is
whole and checked. Inside it, too, every file appears under its name only when it is finished:

    made_from.json          the settings: a leftover of others is discarded
    lock                    held (flock) by the one process that writes
    NAME.npy                a finished array
    NAME.npy.shards         an array that grows (`ShardTable`), its finished shards listed in
    NAME.shards.json
    scratch_NAME.*          an array that is only needed on the way; gone when all of it counts
"""

import abc
import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from data_pipeline.arrays import array_file
from data_pipeline.files import hold, plain, sync_folder, write_json, write_whole
from data_pipeline.schema import SAME_AS, UserError

MADE_FROM = "made_from.json"
LOCK = "lock"
SCRATCH = "scratch_"


def tidy(path: Path) -> None:
    """Remove what the writer of a folder needed on the way, as soon as what it made counts: a
    writer that is killed before goes on with it."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            if _is_needed(name):
                (path / name).unlink()


def _is_needed(name: str) -> bool:
    """Whether a file helps the writer, and nobody reads it later."""
    return name in (MADE_FROM, LOCK) or name.startswith(SCRATCH)


def write_array(path: Path, array: np.ndarray) -> None:
    """A whole `.npy` file. UserError where it cannot be written."""
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    save = np.lib.format.write_array
    write_whole(path, lambda file: save(file, native, allow_pickle=False))


class ShardTable:
    """An array that grows shard by shard in place; `GrowingFolder.shards` makes one.

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
            if array_file.read_header(self._target).form == (shape, dtype):
                self._done = set(range(self.count))
                return
            self._target.unlink()
        self._done = self._resume()
        self._offset = array_file.read_header(self._growing).offset

    def _resume(self) -> set[int]:
        try:
            plan = json.loads(self._plan.read_text())
            same = array_file.read_header(self._growing).form == (self._shape, self._dtype.name)
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
        file.write(array_file.npy_header(self._shape, self._dtype.str))
        file.truncate(file.tell() + math.prod(self._shape) * self._dtype.itemsize)

    def _write_plan(self, done: set[int]) -> None:
        write_json(self._plan, {"rows": self._step, "done": sorted(done)})

    def array(self) -> np.memmap:
        """The whole array, read-only, once it is finished."""
        return array_file.open_array(self._target)

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


class GrowingFolder(abc.ABC):
    """Makes the folder `path`, going on with what a killed writer of the same settings left.

    Args:
        path: of the folder to be; it must not exist.
        made_from: JSON of the settings that decide what it holds. A leftover of others is
            discarded.

    Raises:
        UserError: `path` exists, another process writes it, or the place cannot be written.
    """

    SUFFIX = ".partial"
    FORM: Any = None  # version of what it holds; leftovers of another are discarded
    FOLDERS: Collection[str] = ()  # that may lie in it

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

    @abc.abstractmethod
    def _check(self, name: str, shape: Sequence[int], dtype: str) -> None:
        """UserError unless it may have an array of this name, rank and dtype."""

    def _refuse_existing(self) -> None:
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(f"{self.path}: exists already; delete it or give another place")

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
        settings = {"schema": self.FORM, "made_from": self._made_from}
        marker = self.folder / MADE_FROM
        ours = marker.exists()
        own = (LOCK, MADE_FROM, f"{MADE_FROM}.tmp")
        others = [file for file in self.folder.iterdir() if file.name not in own]
        for file in others:
            if (file.is_dir() and file.name not in self.FOLDERS) or not ours:
                raise UserError(
                    f"{file}: no writer of a store left it, but its folder is needed; move it away"
                )
        with contextlib.suppress(OSError, ValueError):
            if json.loads(marker.read_text("utf-8")) == settings:
                return
        if ours:
            note = f"{self.folder}: left over from other settings, discarded"
            print(note, file=sys.stderr, flush=True)
            write_json(marker, {})  # of nothing, should this be killed in the middle
        for file in others:
            _remove(file)
        write_json(marker, settings)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def has(self, name: str) -> bool:
        """Whether this array is finished."""
        return self._file(name).exists()

    def array(self, name: str) -> Any:
        """A finished array, read-only."""
        if not self.has(name):
            name = SAME_AS.get(name, name)
        if not self.has(name):
            raise UserError(f"{self._file(name)}: is not written yet")
        return array_file.open_array(self._file(name))

    def write(self, name: str, array: np.ndarray) -> None:
        """Write a whole array, over an older one of this name.

        Raises:
            UserError: unknown name, or another dtype or rank than `schema` says.
        """
        self._check(name, array.shape, array.dtype.name)
        write_array(self._file(name), array)

    def shards(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        rows_per_shard: int,
        scratch: bool = False,
    ) -> ShardTable:
        """An array to be written shard by shard; finished shards of this layout are kept. One of
        `scratch` helps to make others and does not stay (`tidy`)."""
        if rows_per_shard < 1:
            raise UserError(f"{name}: {rows_per_shard} rows a shard; at least 1 is needed")
        if scratch:
            name = f"{SCRATCH}{name}"
        else:
            self._check(name, shape, dtype)
        return ShardTable(self.folder, name, shape, dtype, rows_per_shard)

    def _summed(self, found: Mapping[str, array_file.Header]) -> dict[str, dict[str, Any]]:
        """What is to be known of these arrays, a `Spec` each, as JSON. UserError on a float that is
        not finite."""
        entries = {}
        total = sum(header.end for header in found.values())
        with array_file.watch("checking the features", total) as bar:
            for name, header in found.items():
                crc32, bad = array_file.checksum(self._file(name), header, bar.advance)
                if bad is not None:
                    where = self._file(name)
                    raise UserError(
                        f"{where}: row {bad} holds a value that is not finite; delete "
                        f"{self.folder} and encode anew"
                    )
                entries[name] = dataclasses.asdict(array_file.Spec(*header.form, header.end, crc32))
        return entries

    def _appear(self, kept: Collection[str]) -> None:
        """The folder, whole, with these files and what `tidy` removes."""
        for file in self.folder.iterdir():
            if file.name not in kept and not _is_needed(file.name):
                _remove(file)
        sync_folder(self.folder)
        os.rename(self.folder, self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Let another writer go on; what is finished stays."""
        self._lock.close()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
