"""A knowledge base in a PostgreSQL database, changed.

What is added is encoded into a folder of this machine (~/.cache/drin_jax/kb), so that it goes on
after a kill; then one transaction writes rows, features and what they are found by, and the row of
`change` that makes them count. The lock is the server's, held while the change is open.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.arrays import array_file
from data_pipeline.kb import postgres_server as server
from data_pipeline.kb import rows
from data_pipeline.kb.change import Change, Fill
from data_pipeline.kb.knowledge_base import PIECE, ROWS, KnowledgeBase, Segment
from data_pipeline.kb.postgres import read_meta
from data_pipeline.kb.postgres_tables import Tables
from data_pipeline.schema import Entity, UserError

PATIENCE = 2.0  # seconds in which the server may find out that a process was killed
NEEDED = {"pg_trgm": (1, 6), "vector": (0, 8)}  # extensions and their oldest versions


class PostgresChange(Change):
    """One change of the knowledge base at `url`, as `Change` is one of a folder's."""

    path: str

    def __init__(self, url: str, fill: Fill | None = None):
        self.path, self._fill = url, fill
        self._server = server.Server(url)
        try:
            place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:  # nobody's home
            raise UserError(f"{url}: nowhere to keep what is encoded; set XDG_CACHE_HOME") from None
        name = hashlib.sha256(f"{url.partition('#')[0]}#{self._server.schema}".encode())
        self._folder = Path(place) / "drin_jax" / "kb" / name.hexdigest()[:16]
        self._key = int.from_bytes(
            hashlib.sha256(f"drin_jax kb {self._server.schema}".encode()).digest()[:8], signed=True
        )
        self._held: psycopg.Connection[Any] | None = None
        try:
            self._take_lock()
        except BaseException:
            self._server.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _take_lock(self) -> None:
        """Unless this process has it already: a connection that was lost took it along."""
        with server.told(self.path):
            connection = self._server.checked()
            if connection is self._held:
                return
            with contextlib.suppress(psycopg.Error):  # a kill of this process ends what it asked
                connection.execute("SET client_connection_check_interval = '1s'")
            until = time.monotonic() + PATIENCE
            while not _one(connection, "SELECT pg_try_advisory_lock(%s)", self._key):
                if time.monotonic() > until:
                    holder = _one(connection, _HOLDER, self._key) or "another process"
                    raise UserError(f"{self.path}: in use by {holder}; wait for it, or stop it")
                time.sleep(0.05)
            self._held = connection

    @property
    def begun(self) -> bool:
        """Whether a knowledge base is there."""
        return read_meta(self._server) is not None

    def build(self, entities: Sequence[Entity], **named: Any) -> KnowledgeBase:
        """As `Change.build`; the server must have, or let this user make, the extensions pg_trgm
        and, for features, vector."""
        if not self.begun:
            self._prepare(features=self._fill is not None)
        return super().build(entities, **named)

    def _prepare(self, features: bool) -> None:
        """Extensions, and whether names can be kept. UserError where something is missing."""
        with server.told(self.path):
            connection = self._server.connection()
            if (encoding := _one(connection, "SHOW server_encoding")) != "UTF8":
                raise UserError(
                    f"{self.path}: the database's encoding is {encoding}; give one of UTF8"
                )
            schema = self._server.schema
            if _one(connection, _FOREIGN, schema):
                raise UserError(
                    f"{self.path}: schema {schema} holds other tables; give another behind #"
                )
            for name in NEEDED if features else ("pg_trgm",):
                self._extend(connection, name)
            self._server.settle()
            if not _one(connection, "SELECT cardinality(show_trgm('\u044f'))"):
                raise UserError(
                    f"{self.path}: the database's LC_CTYPE has ASCII letters alone, by which other "
                    "names are not found; make one with LC_CTYPE 'C.UTF-8', or as the server has it"
                )

    def _extend(self, connection: psycopg.Connection[Any], name: str) -> None:
        needed = ".".join(map(str, NEEDED[name]))
        try:
            with connection.transaction():
                connection.execute("SET LOCAL search_path TO DEFAULT")
                connection.execute(f"CREATE EXTENSION IF NOT EXISTS {name}")
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise UserError(
                f"{self.path}: needs the extension {name} {needed} ({server.said(error)}); have it "
                f"installed on the server, and CREATE EXTENSION {name} run in the database"
            ) from None
        query = "SELECT extversion FROM pg_extension WHERE extname = %s"
        version = str(_one(connection, query, name))
        if tuple(int(part) for part in version.split(".")[:2]) < NEEDED[name]:
            raise UserError(
                f"{self.path}: the extension {name} is {version}, but {needed} is needed; ALTER "
                f"EXTENSION {name} UPDATE, or have a newer one installed on the server"
            )

    def _made_last(self, kb: KnowledgeBase, asked: pa.Table, entities: Sequence[Entity]) -> bool:
        """By the rows alone: the server's clock may be another than the pictures'."""
        return kb.put_last(asked)

    def _check(self, entities: Sequence[Entity]) -> None:
        super()._check(entities)
        for one in entities:
            texts = (one.id, one.name, one.description, one.type, *one.aliases)
            _check_text(self.path, one.id, texts)

    def _publish(self, meta: Mapping[str, Any], kept: Sequence[Segment], folder: Path) -> None:
        table = rows.open_table(folder / ROWS)

        def pieces(name: str) -> Iterator[np.ndarray]:
            array = array_file.open_array(folder / f"{name}.npy")
            return (array[at : at + PIECE] for at in range(0, len(array), PIECE))

        self._take_lock()
        with self._writing(kept, after=kept[-1].number - 1) as tables:
            if len(kept) == 1:
                tables.make(meta)
            tables.put(kept[-1], table, pieces)
            if len(kept) == 1:
                tables.index()
                tables.replace()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self, kb: KnowledgeBase) -> None:
        self._prepare(features=bool(kb.tables))
        with self._writing(kb.segments, after=0) as tables:
            tables.make(kb.meta)
            for number, segment in enumerate(kb.segments):
                table = kb.segment_rows(number)
                _check_table(self.path, table)
                tables.put(segment, table, functools.partial(kb.segment_array, number))
            tables.index()

    @contextlib.contextmanager
    def _writing(self, kept: Sequence[Segment], after: int) -> Iterator[Tables]:
        """One transaction, which nobody sees before it is through; UserError unless it follows
        generation `after`: whoever lost the lock for a while may be late."""
        with server.told(self.path):
            connection = self._server.connection()
            with connection.transaction():
                change = self._server.table("change")
                there = after and _one(connection, f"SELECT max(number) FROM {change}")
                if there != after:
                    raise UserError(f"{self.path}: was changed meanwhile; run this again")
                yield Tables(connection, self._server, kept)

    def _clear(self, kb: KnowledgeBase) -> None:
        """What was folded went with the transaction."""


def _one(connection: psycopg.Connection[Any], query: str, *given: Any) -> Any:
    """The value that a query gives; None where there is no row."""
    found = connection.execute(query, given or None).fetchone()  # type: ignore[call-overload]
    return found[0] if found else None


def _check_text(url: str, id: str, values: Sequence[str]) -> None:
    if any("\0" in value for value in values):
        raise UserError(f"{url}: {id!r:.60} has a character NUL, which PostgreSQL cannot keep")


def _check_table(url: str, table: pa.Table) -> None:
    """UserError where a row's text holds what PostgreSQL cannot keep."""
    for name in ("id", "name", "description", "type", "aliases", "images"):
        column = table[name].combine_chunks()
        if pa.types.is_large_list(column.type):
            column = pc.list_flatten(column)
        if pc.any(pc.match_substring(column, "\0")).as_py():
            for one in table.select(["id", name]).to_pylist():
                values = [one[name]] if isinstance(one[name], str) else one[name]
                _check_text(url, one["id"], values)


_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid), (SELECT %s::bigint) AS k(k)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND classid::bigint = (k >> 32) & 4294967295 AND objid::bigint = k & 4294967295
"""
_FOREIGN = """
SELECT true FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %s AND relkind IN ('r', 'p') LIMIT 1
"""
