"""A knowledge base in a PostgreSQL database, read.

    meta, change            what a folder's kb.json says; a row of `change` is a segment
    entity_N_…, dead_N_…    rows by their numbers, and which of them a segment takes out
    entity_text_N_…         a table of features: a row's bytes as a folder's file has them, and of
                            that which vectors are searched in, its direction for pgvector
    form_N_…, words_N_…     what rows are found by (`postgres_finder`), as `folded_names` folds it
    word_N_…                how many rows have a word

N and a digest are those of the first segment: `compact` makes other tables. Rows are added and
never changed, so that who reads generation g asks for the rows that it has, whatever was added
since; each call is a short query of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.arrays import array_file
from data_pipeline.arrays.stacked import RowArray
from data_pipeline.kb import rows
from data_pipeline.kb.knowledge_base import (
    DEAD,
    LOOKS,
    MEND,
    PIECE,
    Damaged,
    Finder,
    KnowledgeBase,
    Segment,
    as_of,
    check_meta,
    segments_of,
)
from data_pipeline.kb.postgres_finder import PostgresFinder, described, found_by
from data_pipeline.kb.postgres_server import Server
from data_pipeline.schema import PADDING, Entity, UserError

_COLUMNS = ", ".join(rows.COLUMNS.names)


def open_base(url: str, at: Mapping[str, Any] | None = None) -> "PostgresBase":
    """The knowledge base at a URL; `at` as `open_kb` takes it. UserError."""
    server = Server(url)
    for left in reversed(range(LOOKS)):
        meta = read_meta(server)
        if meta is None:
            raise UserError(f"{url}: there is no knowledge base; make one with drin-jax kb build")
        check_meta(url, meta)
        try:
            return PostgresBase(server, meta, as_of(url, segments_of(url, meta), at))
        except UserError:
            if not left or read_meta(server) == meta:
                raise
    raise AssertionError


def read_meta(server: Server) -> dict[str, Any] | None:
    """What kb.json has in a folder, and of each segment, a digest of its pictures; None: there is
    no knowledge base."""
    meta, change = server.table("meta"), server.table("change")
    there = server.ask(
        "SELECT to_regclass(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL", meta, change
    )
    if there != [(True, True)]:
        return None
    # One query, so that it is of one moment.
    fields = "form, name, root, made_from, report"
    found = server.ask(
        f"SELECT {fields}, segments, images FROM {meta}, (SELECT json_agg(segment ORDER BY number) "
        f"AS segments, array_agg(images ORDER BY number) AS images FROM {change}) AS all_changes"
    )
    names = [*fields.split(", "), "segments", "images"]
    return dict(zip(names, found[0], strict=True)) if found else None


class PostgresBase(KnowledgeBase):
    """A knowledge base of a database. `open_base` makes one."""

    path: str

    def __init__(self, server: Server, meta: Mapping[str, Any], segments: Sequence[Segment]):
        self._describe(server.url, meta, segments)
        self._server, self._images = server, meta["images"]
        self.alive = np.ones(int(self._begins[-1]), bool)
        dead = server.ask(f"SELECT row FROM {self.table(DEAD)} WHERE number <= %s", self.generation)
        taken = np.array([row for (row,) in dead], np.int64)
        if len(taken) and not 0 <= taken.min() <= taken.max() < len(self):
            raise UserError(f"{self.path}: takes out rows that are not there; {MEND}")
        self.alive[taken] = False
        for name, spec in ((n, a) for s in self.segments for n, a in s.arrays.items() if n != DEAD):
            shape = (len(self), *spec.shape[1:])
            self._parts[name] = [FetchedArray(server, self.table(name), shape, spec.dtype)]

    @property
    def meta(self) -> dict[str, Any]:
        """As a folder's, without what only a server keeps."""
        return {name: value for name, value in super().meta.items() if name != "images"}

    @property
    def size(self) -> int:
        """Bytes on the server, indexes included."""
        found = self._server.ask(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s)",
            f'"{self._server.schema}"',
        )
        return int(found[0][0])

    def seen_from(self, folder: Any) -> str:
        """The address: the same from every folder."""
        return self.path

    def table(self, name: str) -> str:
        """A table's name in SQL."""
        return self._server.table(name, self.segments[0])

    def _fetch(self, name: str, columns: str, begin: int, end: int) -> list[tuple[Any, ...]]:
        return self._server.fetch(self.table(name), columns, begin, end)

    def __iter__(self) -> Iterator[Entity]:
        for begin in range(0, len(self), PIECE):
            yield from rows.entities(self._rows(begin, min(begin + PIECE, len(self))), self.root)

    def entities(self, chosen: np.ndarray) -> list[Entity]:
        """The entities of rows [n]."""
        unique, place = np.unique(chosen, return_inverse=True)
        found: list[Entity] = []
        for begin in range(0, len(unique), PIECE):
            some = self._server.fetch_some(
                self.table("entity"), _COLUMNS, unique[begin : begin + PIECE]
            )
            found += rows.entities(_table(some), self.root)
        return [found[i] for i in place.tolist()]

    def _rows(self, begin: int, end: int) -> pa.Table:
        found = self._fetch("entity", _COLUMNS, begin, end)
        if len(found) != end - begin:
            raise self._server.lacking(self.table("entity"))
        return _table(found)

    def put_last(self, table: pa.Table) -> bool:
        """Whether these rows are the last segment already."""
        mine = (self.segments[-1].digest, self._images[len(self.segments) - 1])
        return mine == (rows.digest(table), rows.digest_of_images(table))

    def segment_rows(self, number: int) -> pa.Table:
        """As a folder has them; Damaged where their digest is another."""
        begin, end = int(self._begins[number]), int(self._begins[number + 1])
        pieces = [self._rows(at, min(at + PIECE, end)) for at in range(begin, end, PIECE)] or [
            _table([])
        ]
        found = pa.concat_tables(pieces).combine_chunks()
        mine = (self.segments[number].digest, self._images[number])
        if mine != (rows.digest(found), rows.digest_of_images(found)):
            where = f"{self.segments[number].folder}/rows"
            raise Damaged(f"{self.path}: damaged since it was written: {where}; {MEND}")
        return found

    def living(self) -> pa.Table:
        """The rows that were not removed."""
        pieces = []
        for begin in range(0, len(self), PIECE):
            end = min(begin + PIECE, len(self))
            pieces.append(self._rows(begin, end).filter(pa.array(self.alive[begin:end])))
        return pa.concat_tables(pieces)

    def column(self, name: str, begin: int = 0) -> pa.ChunkedArray:
        """A column from a row on."""
        kind = rows.COLUMNS.field(name).type
        chunks = [
            pa.array(
                [v for (v,) in self._fetch("entity", name, at, min(at + PIECE, len(self)))], kind
            )
            for at in range(begin, len(self), PIECE)
        ]
        return pa.chunked_array(chunks, kind)

    def taken(self, name: str, chosen: np.ndarray) -> list[Any]:
        """A column's values in rows [n]."""
        unique, place = np.unique(chosen, return_inverse=True)
        found: list[Any] = []
        for begin in range(0, len(unique), PIECE):
            some = self._server.fetch_some(
                self.table("entity"), name, unique[begin : begin + PIECE]
            )
            found += [value for (value,) in some]
        return [found[i] for i in place.tolist()]

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """The living row of each id, [n] int64; PADDING where there is none."""
        asked, there = [one for one in dict.fromkeys(ids) if _storable(one)], {}
        for begin in range(0, len(asked), PIECE):
            some = asked[begin : begin + PIECE]
            query = f"SELECT id, row FROM {self.table('entity')} WHERE id = ANY(%s::text[])"
            for one, row in self._server.ask(query, some):
                if row < len(self) and self.alive[row]:
                    there[one] = row
        return np.array([there.get(one, PADDING) for one in ids], np.int64)

    def finder(self) -> Finder:
        """Finds by `pg_trgm` on the server."""
        return PostgresFinder(self, self._server, self.table)

    def _pieces(self, number: int, name: str) -> Iterator[np.ndarray]:
        segment = self.segments[number]
        if name == DEAD:
            query = f"SELECT row FROM {self.table(DEAD)} WHERE number = %s ORDER BY row"
            found = self._server.ask(query, segment.number)
            yield np.array([row for (row,) in found], np.int64)
            return
        begin, end = int(self._begins[number]), int(self._begins[number + 1])
        for at in range(begin, end, PIECE):
            yield self._parts[name][0].kept(at, min(at + PIECE, end))

    def verify(self) -> None:
        """Reads every array and compares checksums. UserError names what is damaged."""
        total = sum(spec.bytes for segment in self.segments for spec in segment.arrays.values())
        damaged = []
        with array_file.watch(f"verifying {self.path}", total) as bar:
            for number, segment in enumerate(self.segments):
                try:
                    self._verify_index(number, self.segment_rows(number))
                except Damaged:
                    damaged.append(f"{segment.folder}/rows")
                for name in segment.arrays:
                    try:
                        for piece in self.segment_array(number, name):
                            bar.advance(piece.nbytes)
                    except Damaged:
                        damaged.append(f"{segment.folder}/{name}")
        if damaged:
            raise UserError(
                f"{self.path}: damaged since it was written: {', '.join(damaged)}; {MEND}"
            )

    def _verify_index(self, number: int, table: pa.Table) -> None:
        """Damaged unless each row is found by its names and words."""
        first = int(self._begins[number])
        for at in range(0, table.num_rows, PIECE):
            some = table.slice(at, PIECE).select(["name", "aliases", "description"]).to_pylist()
            begin, end = first + at, first + at + len(some)
            forms = {
                (row, *one)
                for row, entity in enumerate(some, begin)
                for one in found_by(entity["name"], entity["aliases"])
            }
            words = [
                (row, sorted(described(entity["name"], entity["description"])))
                for row, entity in enumerate(some, begin)
            ]
            kept = self._fetch("words", "row, tsvector_to_array(words)", begin, end)
            if forms != {*self._fetch("form", "row, form, initials", begin, end)} or words != [
                (row, sorted(own)) for row, own in kept
            ]:
                raise Damaged(f"{self.path}: its index is damaged; {MEND}")


class FetchedArray(RowArray):
    """A table of features in a database."""

    def __init__(self, server: Server, table: str, shape: tuple[int, ...], kept: str):
        super().__init__(shape, kept)
        self._server, self._table = server, table

    def _rows(self, flat: np.ndarray) -> np.ndarray:
        unique, place = np.unique(flat, return_inverse=True)
        found = np.empty((len(unique), *self.shape[1:]), self.dtype)
        for at in range(0, len(unique), PIECE):
            found[at : at + PIECE] = self._fetched(unique[at : at + PIECE])
        return found if np.array_equal(unique, flat) else found[place]

    def _fetched(self, some: np.ndarray) -> np.ndarray:
        """Rows that rise."""
        begin, end = int(some[0]), int(some[-1]) + 1
        if end - begin == len(some):
            return self.kept(begin, end)
        return self._decoded(self._server.fetch_some(self._table, "value", some), len(some))

    def kept(self, begin: int, end: int) -> np.ndarray:
        """The rows from `begin` to before `end`, as they are kept. Damaged where one is not."""
        return self._decoded(self._server.fetch(self._table, "value", begin, end), end - begin)

    def _decoded(self, found: Sequence[tuple[bytes]], count: int) -> np.ndarray:
        data = b"".join([value for (value,) in found])
        shape = (count, *self.shape[1:])
        if len(found) != count or len(data) != self._kept.itemsize * int(np.prod(shape)):
            raise self._server.lacking(self._table)
        return np.frombuffer(data, self._kept.newbyteorder("<")).reshape(shape)


def _table(found: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*found, strict=True) if found else [()] * len(rows.COLUMNS)
    named = zip(columns, rows.COLUMNS, strict=True)
    return pa.table([pa.array(values, field.type) for values, field in named], rows.COLUMNS)


def _storable(one: str) -> bool:
    """Whether PostgreSQL could hold this text."""
    return "\0" not in one and one.encode(errors="replace").decode() == one
