"""The tables of a knowledge base in PostgreSQL, written."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg.types.json import Json

from data_pipeline.arrays import array_file
from data_pipeline.kb import postgres_server as server
from data_pipeline.kb import rows
from data_pipeline.kb.knowledge_base import DEAD, PIECE, Segment
from data_pipeline.kb.postgres_finder import SEARCHED, described, found_by, unit, vector_type
from data_pipeline.output import Progress
from data_pipeline.schema import SAME_AS

QUIET_ROWS = 20_000  # fewer are written in a few seconds

_TABLES = {
    "entity": "row int, id text, name text, aliases text[], description text, type text, "
    "popularity float8, images text[]",
    DEAD: "number int, row int",
    "form": "row int, form text, initials bool",
    "words": "row int, words tsvector",
    "word": "word text PRIMARY KEY, documents int",
}
# Without pending lists, which searches would read through.
_GIN = "WITH (fastupdate = off)"
_INDEXES = {
    "entity": ("UNIQUE INDEX ON {} (row)", "INDEX ON {} USING hash (id)"),
    "form": (
        "INDEX ON {} USING brin (row) WITH (pages_per_range = 16)",
        "INDEX ON {} USING hash (form)",
        f"INDEX ON {{}} USING gin (form gin_trgm_ops) {_GIN} WHERE NOT initials",
    ),
    "words": ("UNIQUE INDEX ON {} (row)", f"INDEX ON {{}} USING gin (words) {_GIN}"),
}


class Tables:
    """The tables of the segments that are kept, in a transaction."""

    def __init__(
        self, connection: psycopg.Connection[Any], own: server.Server, kept: Sequence[Segment]
    ):
        self._connection, self._server, self._kept = connection, own, kept
        arrays = {n: a for s in kept for n, a in s.arrays.items() if n != DEAD}
        self._arrays = {name: spec.shape[1:] for name, spec in arrays.items()}
        self._replaced: Segment | None = None  # first of those whose tables go
        self._searched = SEARCHED if SEARCHED in self._arrays else SAME_AS[SEARCHED]

    def _name(self, table: str) -> str:
        return self._server.table(table, self._kept[0])

    def _vector(self, name: str) -> str:
        shape = self._arrays[name]
        return vector_type(shape[0]) if name == self._searched and len(shape) == 1 else ""

    def make(self, meta: Mapping[str, Any]) -> None:
        """New tables, and the knowledge base of no segment."""
        run, table = self._connection.execute, self._server.table
        run(f'CREATE SCHEMA IF NOT EXISTS "{self._server.schema}"')
        run(
            f"CREATE TABLE IF NOT EXISTS {table('change')} "
            "(number int PRIMARY KEY, segment json, images text)"
        )
        run(
            f"CREATE TABLE IF NOT EXISTS {table('meta')} "
            "(form int, name text, root text, made_from json, report json)"
        )
        old = run(f"SELECT segment FROM {table('change')} ORDER BY number LIMIT 1").fetchone()
        self._replaced = Segment.from_plain(old[0]) if old else None
        run(f"DELETE FROM {table('change')}")
        run(f"DELETE FROM {table('meta')}")
        plain = [meta[name] for name in ("form", "name", "root")]
        given = [*plain, Json(meta["made_from"]), Json(meta["report"])]
        run(f"INSERT INTO {table('meta')} VALUES (%s, %s, %s, %s, %s)", given)
        for name, columns in _TABLES.items():
            run(f"CREATE TABLE {self._name(name)} ({columns})")
        for name in self._arrays:
            kind = self._vector(name)
            vector = f", vector {kind}({self._arrays[name][0]})" if kind else ""
            run(f"CREATE TABLE {self._name(name)} (row int, value bytea{vector})")
            run(f"ALTER TABLE {self._name(name)} ALTER value SET STORAGE EXTERNAL")

    def index(self) -> None:
        """Indexes of what was put, which take longer where they are there first."""
        made = [(name, one) for name, some in _INDEXES.items() for one in some]
        for name in self._arrays:
            made.append((name, "UNIQUE INDEX ON {} (row)"))
            if kind := self._vector(name):
                made.append((name, f"INDEX ON {{}} USING hnsw (vector {kind}_cosine_ops)"))
        count = sum(segment.rows for segment in self._kept)
        with Progress("indexing", len(made), unit="indexes", loud=count > QUIET_ROWS) as bar:
            for name, one in made:
                self._connection.execute(f"CREATE {one.format(self._name(name))}")
                bar.advance()
        for name in (*_TABLES, *self._arrays):
            self._connection.execute(f"ANALYZE {self._name(name)}")

    def replace(self) -> None:
        """Drops the tables that these replace; last, for readers wait from here on."""
        if self._replaced is not None:
            for name in (*_TABLES, *self._arrays):
                self._connection.execute(f"DROP TABLE {self._server.table(name, self._replaced)}")

    def put(
        self, segment: Segment, table: pa.Table, pieces: Callable[[str], Iterator[np.ndarray]]
    ) -> None:
        """A segment's rows, features and dead rows, as the last one."""
        place = [one.number for one in self._kept].index(segment.number)
        begin = sum(one.rows for one in self._kept[:place])
        with Progress(
            "writing rows", table.num_rows, unit="rows", loud=table.num_rows > QUIET_ROWS
        ) as bar:
            for at in range(0, table.num_rows, PIECE):
                some = table.slice(at, PIECE)
                self._put_rows(begin + at, some)
                bar.advance(some.num_rows)
        total = sum(spec.bytes for spec in segment.arrays.values())
        with array_file.watch("writing features", total) as bar:
            for name in segment.arrays:
                at = begin
                for piece in pieces(name):
                    if name == DEAD:
                        self._put_dead(segment.number, piece)
                    else:
                        self._put_features(name, at, piece)
                    at += len(piece)
                    bar.advance(piece.nbytes)
        given = (segment.number, Json(segment.plain()), rows.digest_of_images(table))
        change = self._server.table("change")
        self._connection.execute(f"INSERT INTO {change} VALUES (%s, %s, %s)", given)

    def _put_rows(self, begin: int, some: pa.Table) -> None:
        entities, found, texts_of = [], [], []
        counts: Counter[str] = Counter()
        for i, one in enumerate(some.to_pylist()):
            row = server.integer(begin + i)
            texts = [server.text(one[name]) for name in ("id", "name", "description", "type")]
            lists = [server.texts(one[name]) for name in ("aliases", "images")]
            entities.append(server.record(row, *texts, server.double(one["popularity"]), *lists))
            for form, short in found_by(one["name"], one["aliases"]):
                found.append(server.record(row, server.text(form), b"\1" if short else b"\0"))
            words = described(one["name"], one["description"])
            counts.update(words)
            texts_of.append(server.record(row, server.lexemes(words)))
        columns = "row, id, name, description, type, popularity, aliases, images"
        server.copy_in(self._connection, self._name("entity"), columns, entities)
        server.copy_in(self._connection, self._name("form"), "row, form, initials", found)
        server.copy_in(self._connection, self._name("words"), "row, words", texts_of)
        self._connection.execute(
            f"INSERT INTO {self._name('word')} AS old SELECT * FROM unnest(%s::text[], %s::int[]) "
            "ON CONFLICT (word) DO UPDATE SET documents = old.documents + excluded.documents",
            ([*counts], [*counts.values()]),
        )

    def _put_dead(self, number: int, dead: np.ndarray) -> None:
        segment = server.integer(number)
        taken = (server.record(segment, server.integer(row)) for row in dead.tolist())
        server.copy_in(self._connection, self._name(DEAD), "number, row", taken)

    def _put_features(self, name: str, begin: int, piece: np.ndarray) -> None:
        """Rows of equal size are one array, as COPY takes them."""
        kind, n = self._vector(name), len(piece)
        data = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<"))
        width = data.itemsize * int(np.prod(data.shape[1:]))
        fields: list[Any] = [("fields", ">i2"), ("row_bytes", ">i4"), ("row", ">i4")]
        fields += [("value_bytes", ">i4"), ("value", "u1", (width,))]
        if kind:
            real, d = (">f4" if kind == "vector" else ">f2"), piece.shape[1]
            fields += [
                ("vector_bytes", ">i4"),
                ("width", ">i2"),
                ("zero", ">i2"),
                ("vector", real, (d,)),
            ]
        records = np.zeros(n, fields)
        records["fields"], records["row_bytes"], records["value_bytes"] = 2 + bool(kind), 4, width
        records["row"] = np.arange(begin, begin + n)
        records["value"] = np.frombuffer(data.tobytes(), np.uint8).reshape(n, width)
        if kind:
            records["vector"], records["width"] = unit(piece), d
            records["vector_bytes"] = 4 + d * np.dtype(real).itemsize
        columns = "row, value" + ", vector" * bool(kind)
        server.copy_in(self._connection, self._name(name), columns, [records.tobytes()])
