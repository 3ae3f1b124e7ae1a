"""A knowledge base, read.

    KB/kb.json         what it is made of, replaced whole by every change
    KB/000001/         a segment: rows.arrow, an `.npy` file for each table of features, dead.npy;
    KB/000002/         never written again
    KB/index/          caches, made anew of the segments where they are missing or of others

Every change is a segment: the rows that it adds, and the numbers of the earlier rows that it takes
out. A row's number is its place among the rows of all segments and stays until `compact`; so the
knowledge base as it was at generation g is its segments up to number g, and a store or a model that
was made then reads it so, while others add to it.

A database may keep one as well (`kb.postgres`): the same calls, the same segments in its tables.
"""

import dataclasses
import functools
import hashlib
import importlib
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.arrays import array_file
from data_pipeline.arrays.stacked import stacked
from data_pipeline.files import load_json
from data_pipeline.kb import rows
from data_pipeline.schema import ENTITY_ARRAYS, PADDING, SAME_AS, Entity, UserError, reason

KB_JSON, ROWS, DEAD = "kb.json", "rows.arrow", "dead"
FORM = 1
LOOKS = 20  # at segments that a compaction replaces meanwhile
MEND = "restore it from a copy, or build the knowledge base anew"
PIECE = 1 << 14  # rows of a table of features that are read, or copied, at once
# Scheme of a URL -> the module that reads knowledge bases there; NAME_change changes them.
DATABASES = dict.fromkeys(("postgresql", "postgres"), "data_pipeline.kb.postgres")


class Damaged(UserError):
    """What is kept is not what was written."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """What kb.json says of a segment. `rows_file` is of its Arrow file; `digest` of what is in it;
    `dead` says how many earlier rows it takes out."""

    number: int
    rows: int
    dead: int
    digest: str
    rows_file: array_file.Spec
    arrays: Mapping[str, array_file.Spec]

    @property
    def folder(self) -> str:
        """Its folder, below the knowledge base's."""
        return f"{self.number:06d}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, entry: Mapping[str, Any]) -> "Segment":
        """The way back. KeyError, TypeError or ValueError where it is no such thing."""

        def spec(one: Mapping[str, Any]) -> array_file.Spec:
            shape = tuple(int(n) for n in one["shape"])
            return array_file.Spec(shape, str(one["dtype"]), int(one["bytes"]), int(one["crc32"]))

        arrays = {str(name): spec(one) for name, one in entry["arrays"].items()}
        number, count, dead = (int(entry[name]) for name in ("number", "rows", "dead"))
        return cls(number, count, dead, str(entry["digest"]), spec(entry["rows_file"]), arrays)


Found = tuple[np.ndarray, np.ndarray]  # rows [k] int64, best first, and their scores [k] float32


@runtime_checkable
class Finder(Protocol):
    """What finds the living rows of a knowledge base by a text."""

    def names(self, name: str, n: int) -> Found:
        """The n whose names are most like this one; fewer where no more are like it."""
        ...

    def words(self, text: str, n: int) -> Found:
        """The n whose descriptions share most with a text."""
        ...

    def knows(self, form: str) -> bool:
        """Whether one has this name or alias, given as `folded_names.fold` makes it."""
        ...


class KnowledgeBase(Sequence[Entity]):
    """An open knowledge base, a sequence of its rows; `open_kb` makes one.

    Attributes:
        path: its folder, or its URL.
        name: what reports call it.
        generation: grows by one with every change.
        made_from: the settings that its features were made with; empty: it has none.
        report: what was counted while it was made.
        alive: [rows] bool: which rows no later segment has taken out.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], segments: Sequence[Segment]):
        self._describe(path, meta, segments)
        # Everything is opened now: a compaction may delete the files.
        self._tables = [_open_rows(path / s.folder / ROWS, s) for s in self.segments]
        self._whole: dict[str, pa.Array] = {}
        self._files: list[dict[str, np.ndarray]] = [{} for _ in self.segments]
        self.alive = np.ones(int(self._begins[-1]), bool)
        for number, (segment, begin) in enumerate(zip(self.segments, self._begins, strict=False)):
            where = path / segment.folder
            for name, spec in segment.arrays.items():
                array_file.check(where / f"{name}.npy", spec, MEND)
                array = self._files[number][name] = array_file.open_array(where / f"{name}.npy")
                if name != DEAD:
                    self._parts.setdefault(name, []).append(array)
                elif len(array) and not 0 <= array.min() <= array.max() < begin:
                    raise UserError(f"{where / name}.npy: names rows that are not there; {MEND}")
                else:
                    self.alive[array] = False
        short = [n for n, p in self._parts.items() if sum(map(len, p)) != len(self.alive)]
        if short:
            raise UserError(f"{path / KB_JSON}: not every segment has {short[0]}; {MEND}")

    def _describe(
        self, path: Path | str, meta: Mapping[str, Any], segments: Sequence[Segment]
    ) -> None:
        self.path, self.segments, self._meta = path, list(segments), dict(meta)
        self.name: str = meta["name"]
        self.made_from: dict[str, Any] = meta["made_from"]
        self.report: dict[str, Any] = meta["report"]
        self.root: str = meta["root"]
        self.generation = self.segments[-1].number
        self._parts: dict[str, list[Any]] = {}
        self._begins = np.concatenate([[0], np.cumsum([s.rows for s in self.segments])])

    def __len__(self) -> int:
        return len(self.alive)

    def __iter__(self) -> Iterator[Entity]:
        for table in self._tables:
            yield from rows.entities(table, self.root)

    @overload
    def __getitem__(self, row: int) -> Entity: ...
    @overload
    def __getitem__(self, row: slice) -> list[Entity]: ...
    def __getitem__(self, row: int | slice) -> Entity | list[Entity]:
        if isinstance(row, slice):
            return self.entities(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.entities(np.array([row % len(self)]))[0]

    def entities(self, chosen: np.ndarray) -> list[Entity]:
        """The entities of these rows [n]."""
        found: list[Entity | None] = [None] * len(chosen)
        owner = np.searchsorted(self._begins, chosen, side="right") - 1
        for number in np.unique(owner).tolist():
            own = np.flatnonzero(owner == number)
            some = rows.entities(
                self._tables[number], self.root, chosen[own] - self._begins[number]
            )
            for place, entity in zip(own.tolist(), some, strict=True):
                found[place] = entity
        return [entity for entity in found if entity is not None]

    @property
    def entity_count(self) -> int:
        """Rows that are alive."""
        return int(self.alive.sum())

    @property
    def meta(self) -> dict[str, Any]:
        """What kb.json says, but for the segments."""
        return {name: value for name, value in self._meta.items() if name != "segments"}

    @property
    def size(self) -> int:
        """Bytes that it takes, with its index."""
        return sum(file.stat().st_size for file in Path(self.path).rglob("*") if file.is_file())

    def seen_from(self, folder: Path) -> str:
        """How what lies in this folder names it."""
        return os.path.relpath(Path(self.path).resolve(), folder.resolve())

    def put_last(self, table: pa.Table) -> bool:
        """Whether these are the rows that the last change put in."""
        return bool(self._tables[-1].equals(table))

    def segment_rows(self, number: int) -> pa.Table:
        """The rows of segment `segments[number]`."""
        return self._tables[number]

    def segment_array(self, number: int, name: str) -> Iterator[np.ndarray]:
        """An array of `segments[number]`, DEAD too, as it is kept, PIECE rows at once.

        Raises:
            Damaged: at its end, where its checksum is another.
        """
        spec = self.segments[number].arrays[name]
        crc = zlib.crc32(array_file.npy_header(*spec.form))
        for piece in self._pieces(number, name):
            crc = zlib.crc32(np.ascontiguousarray(piece).data, crc) if piece.size else crc
            yield piece
        if crc != spec.crc32:
            where = f"{self.segments[number].folder}/{name}"
            raise Damaged(f"{self.path}: damaged since it was written: {where}; {MEND}")

    def _pieces(self, number: int, name: str) -> Iterator[np.ndarray]:
        array = self._files[number][name]
        for begin in range(0, len(array), PIECE):
            yield np.asarray(array[begin : begin + PIECE])

    def living(self) -> pa.Table:
        """The rows that are alive, as they are kept."""
        return pa.concat_tables(self._tables).filter(pa.array(self.alive))

    def column(self, name: str, begin: int = 0) -> pa.ChunkedArray:
        """One of `rows.COLUMNS` of all rows from `begin` on."""
        chunks = [chunk for table in self._tables for chunk in table[name].chunks]
        return pa.chunked_array(chunks, rows.COLUMNS.field(name).type).slice(begin)

    def taken(self, name: str, chosen: np.ndarray) -> list[Any]:
        """One of `rows.COLUMNS` of these rows [n]."""
        if name not in self._whole:
            self._whole[name] = self.column(name).combine_chunks()
        some = self._whole[name].take(pa.array(chosen))
        if not pa.types.is_large_list(some.type):
            return some.to_pylist()
        values, ends = some.flatten().to_pylist(), some.offsets.to_numpy()
        ends = (ends - ends[0]).tolist()
        none: list[Any] = []  # one for all, as the garbage collector looks through each
        return [values[a:b] if a < b else none for a, b in itertools.pairwise(ends)]

    @functools.cached_property
    def ids(self) -> list[str]:
        """[rows] of all rows, dead ones too."""
        return self.column("id").to_pylist()

    @functools.cached_property
    def names(self) -> list[str]:
        """[rows] of all rows, dead ones too."""
        return self.column("name").to_pylist()

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """The living row of each id, [n] int64; PADDING where there is none."""
        found = np.full(len(ids), PADDING, np.int64)
        # As bytes, for a flag may hold half a surrogate pair, which is nobody's.
        asked = pa.array([one.encode(errors="surrogatepass") for one in ids], pa.large_binary())
        for begin, table in zip(self._begins[-2::-1], self._tables[::-1], strict=True):
            if table.num_rows:
                values = table["id"].cast(asked.type).combine_chunks()
                index = pc.index_in(asked, value_set=values)  # pyright: ignore[reportAttributeAccessIssue]
                row = begin + index.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
                there = index.is_valid().to_numpy(zero_copy_only=False) & self.alive[row]
                found = np.where((found == PADDING) & there, row, found)
        return found

    @property
    def tables(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each table of features, as `array` gives it."""
        forms = {name: self.array(name) for name in self._parts}
        return {name: (tuple(array.shape), array.dtype.name) for name, array in forms.items()}

    def array(self, name: str) -> Any:
        """A table of features, one of `schema.ENTITY_ARRAYS`, read-only: a memory map where the
        knowledge base has one segment, else what can be asked for rows as one (`Stacked`)."""
        name = name if name in self._parts else SAME_AS.get(name, name)
        if name not in self._parts:
            raise UserError(
                f"{self.path}: has no {name}; it was built without this encoder: build it anew "
                "with a --config that has it"
            )
        return stacked(self._parts[name])

    def finder(self) -> Finder | None:
        """What finds its names and words, where the place that it is kept in does that; None:
        `text_index.TextIndex` does."""
        return None

    def kept_dtype(self, name: str) -> str:
        """The dtype in which a table is kept: "float16" takes half the room."""
        return next(s.arrays[name].dtype for s in reversed(self.segments) if name in s.arrays)

    def fingerprint(self) -> str:
        """SHA-256 over the checksums of what is in it."""
        return fingerprint(self.segments)

    def reference(self) -> dict[str, Any]:
        """What has to be the same where it is opened again as it is now."""
        return {"generation": self.generation, "fingerprint": self.fingerprint()}

    def verify(self) -> None:
        """Reads every byte and holds it against its checksum.

        Raises:
            UserError: names every damaged file.
        """
        total = sum(f.bytes for s in self.segments for f in (s.rows_file, *s.arrays.values()))
        damaged = []
        with array_file.watch(f"verifying {self.path}", total) as bar:
            for segment in self.segments:
                folder = Path(self.path) / segment.folder
                if array_file.crc32(folder / ROWS, bar.advance) != segment.rows_file.crc32:
                    damaged.append(f"{segment.folder}/{ROWS}")
                for name, spec in segment.arrays.items():
                    header = array_file.check(folder / f"{name}.npy", spec, MEND)
                    found, _ = array_file.checksum(folder / f"{name}.npy", header, bar.advance)
                    if found != spec.crc32:
                        damaged.append(f"{segment.folder}/{name}.npy")
        if damaged:
            raise UserError(
                f"{self.path}: damaged since it was written: {', '.join(damaged)}; {MEND}"
            )


def _open_rows(path: Path, segment: Segment) -> pa.Table:
    """A segment's rows. A damaged Arrow file can end the process, so all of it is read first."""
    try:
        now = path.stat()
        whole = now.st_size == segment.rows_file.bytes and (
            _crc32(path, now.st_size, now.st_mtime_ns) == segment.rows_file.crc32
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {MEND}") from None
    if not whole:
        raise UserError(f"{path}: is cut, foreign or damaged; {MEND}")
    table = rows.open_table(path)
    if table.num_rows != segment.rows:
        raise UserError(f"{path}: has {table.num_rows} rows, not as {KB_JSON} says; {MEND}")
    return table


@functools.lru_cache(256)
def _crc32(path: Path, size: int, changed: int) -> int:
    return array_file.crc32(path, lambda n: None)


def fingerprint(segments: Sequence[Segment]) -> str:
    """SHA-256 over the checksums of what is in these segments."""
    content = [
        [s.digest, {n: [*a.shape, a.dtype, a.bytes, a.crc32] for n, a in s.arrays.items()}]
        for s in segments
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_url(place: str | Path) -> bool:
    """Whether a knowledge base's place is a URL, not a folder."""
    return "://" in str(place)


def driver(place: str | Path, change: bool = False) -> Any:
    """The module that keeps knowledge bases at URLs of this scheme.

    Args:
        change: that which changes them, instead of that which reads them.

    Raises:
        UserError: there is none, or what it needs is not installed.
    """
    scheme = str(place).partition("://")[0]
    if scheme not in DATABASES:
        raise UserError(
            f"{place}: only folders of this machine's file systems and postgresql:// are read"
        )
    try:
        return importlib.import_module(DATABASES[scheme] + "_change" * change)
    except ImportError as error:
        raise UserError(
            f'{scheme}://: psycopg is missing ({reason(error)}); pip install "drin_jax[postgres]"'
        ) from None


def open_kb(place: str | Path, at: Mapping[str, Any] | None = None) -> KnowledgeBase:
    """The knowledge base in a folder, or at a URL. Of a folder it reads kb.json, every row, and
    each table's header.

    Args:
        at: `KnowledgeBase.reference` of what is counted on: it is opened as it was then, whatever
            was added since.

    Raises:
        UserError: there is none, a file is missing, cut or foreign, or it is not the one that is
            counted on. Damage inside a table of features is `verify`'s to find.
    """
    if is_url(place):
        found: KnowledgeBase = driver(place).open_base(str(place), at)
        return found
    path = Path(place)
    for left in reversed(range(LOOKS)):
        meta = read_meta(path)
        segments = as_of(path, segments_of(path / KB_JSON, meta), at)
        try:
            return KnowledgeBase(path, meta, segments)
        except (UserError, FileNotFoundError):
            if not left or read_meta(path) == meta:
                raise
    raise AssertionError


def as_of(
    place: str | Path, segments: Sequence[Segment], at: Mapping[str, Any] | None
) -> list[Segment]:
    """Those that were there `at` a reference; UserError where they are others by now."""
    if at is None:
        return list(segments)
    found = [one for one in segments if one.number <= at["generation"]]
    if not found or fingerprint(found) != at["fingerprint"]:
        raise UserError(
            f"{place}: is not the knowledge base of generation {at['generation']} that this was "
            "made with: it was built anew or compacted since; make this anew too"
        )
    return found


def read_meta(path: Path) -> dict[str, Any]:
    """kb.json. UserError where there is none, or it is no such thing."""
    file = path / KB_JSON
    if not os.path.isdir(path):  # Path.is_dir raises where the name is too long
        raise UserError(f"{path}: there is no knowledge base; make one with drin-jax kb build")
    try:
        meta = load_json(file)
        if not isinstance(meta, dict):
            raise ValueError("no object")
    except FileNotFoundError:
        raise UserError(f"{file}: is missing, so {path} is no whole knowledge base") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {MEND}") from None
    check_meta(file, meta)
    return meta


def check_meta(file: str | Path, meta: Mapping[str, Any]) -> None:
    """UserError unless this is what kb.json holds."""
    if meta.get("form") != FORM:
        raise UserError(
            f"{file}: is of form {meta.get('form')!r:.20}, but this program reads {FORM}; build "
            "the knowledge base anew"
        )
    kinds = {"name": str, "root": str, "segments": list, "made_from": dict, "report": dict}
    for key, kind in kinds.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"{file}: {key!r} is missing or odd; {MEND}")


def segments_of(file: str | Path, meta: Mapping[str, Any]) -> list[Segment]:
    """The segments that kb.json names, oldest first. UserError where it is odd."""
    try:
        found = [Segment.from_plain(entry) for entry in meta["segments"]]
        numbers = [one.number for one in found]
        if not found or numbers != sorted(set(numbers)):
            raise ValueError("numbers")
        if unknown := {n for s in found for n in s.arrays} - {*ENTITY_ARRAYS, DEAD}:
            raise ValueError(unknown)
        if not all(DEAD in one.arrays for one in found):
            raise ValueError(DEAD)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{file}: its segments are odd; {MEND}") from None
    return found
