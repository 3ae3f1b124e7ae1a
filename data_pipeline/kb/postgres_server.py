"""A PostgreSQL server as knowledge bases see it: its URL, one connection, what goes in by COPY.

    postgresql://[user@]host[:port]/database[?options][#SCHEMA]

The fragment is the database's schema that is the knowledge base, by default "kb". All else is
libpq's; a socket's folder is given as `?host=/folder`. A URL is kept in stores and printed, so that
one with a password is refused.
"""

import contextlib
import os
import re
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from data_pipeline.files import this_process
from data_pipeline.kb.knowledge_base import MEND, Damaged, Segment
from data_pipeline.schema import UserError

SCHEMA = "kb"
PATIENCE = 10  # seconds to wait for a connection, unless the URL says
AGAIN = "run this again once it is back; nothing was lost"
# Everything that queries count on. Operators are found where the extensions lie.
_SETTINGS = """
SELECT set_config('search_path', coalesce(
         (SELECT string_agg(DISTINCT quote_ident(nspname), ', ')
          FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
          WHERE extname IN ('pg_trgm', 'vector')), 'pg_catalog'), false),
       set_config('jit', 'off', false),
       set_config('pg_trgm.word_similarity_threshold', '0.4', false),
       set_config('hnsw.ef_search', '200', false),
       set_config('hnsw.iterative_scan', 'strict_order', false)
"""


def parsed(url: str) -> tuple[str, str]:
    """What libpq connects by, and the schema. UserError where the URL is odd or tells a secret."""
    address, _, schema = url.partition("#")
    schema = schema or SCHEMA
    if re.match(r"[a-z]+://[^/@]*:[^/@]*@", address):
        raise UserError(f"{address.partition('://')[0]}://…: {_SECRET}")
    if not re.fullmatch("[a-z_][a-z0-9_]{0,39}", schema) or schema.startswith("pg_"):
        raise UserError(
            f"{url}: {schema!r:.60} cannot be a schema; give lower-case letters, digits and _ "
            "behind #, 40 at most"
        )
    try:
        given = conninfo_to_dict(address)
    except psycopg.Error as error:
        raise UserError(f"{url}: is no URL of a database ({said(error)})") from None
    if any("password" in name or "secret" in name for name in given):
        raise UserError(f"{address.partition('?')[0]}?…: {_SECRET}")
    fixed = {"client_encoding": "utf8", "application_name": this_process()}
    return make_conninfo("", **{"connect_timeout": PATIENCE, **given, **fixed}), schema


_SECRET = (
    "a URL is stored and printed, so it may hold no password; leave it out, and put it into "
    "~/.pgpass or PGPASSWORD"
)


def said(error: Exception) -> str:
    """What the server or libpq says, in a line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Whatever goes wrong in the database ends in one line."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise UserError(
            f"{url}: was compacted or deleted since it was opened; run this again"
        ) from None
    except psycopg.OperationalError as error:
        state = error.sqlstate or "57P"
        gone = state.startswith(("57P", "08"))
        what = "PostgreSQL went away" if gone else "PostgreSQL cannot"
        raise UserError(f"{url}: {what} ({said(error)}); {AGAIN}") from error
    except psycopg.Error as error:
        raise UserError(f"{url}: PostgreSQL refuses this ({said(error)})") from error


class Server:
    """One connection to the database of a URL, made anew once where it is gone. Threads may share
    it.

    Attributes:
        schema: that the URL names.

    Raises:
        UserError: by every call, where the server cannot be reached or refuses.
    """

    def __init__(self, url: str):
        self.url = url
        self._conninfo, self.schema = parsed(url)
        self._lock = threading.RLock()
        self._open: psycopg.Connection[Any] | None = None
        self._pid = 0

    def connection(self) -> psycopg.Connection[Any]:
        """The connection, in autocommit; another where the old one is closed or a parent's."""
        if self._open is None or self._open.closed or self._pid != os.getpid():
            try:
                self._open = psycopg.connect(
                    self._conninfo, autocommit=True, prepare_threshold=None
                )
            except psycopg.Error as error:
                raise UserError(f"{self.url}: cannot be reached ({said(error)})") from error
            self._pid = os.getpid()
            self.settle()
        return self._open

    def checked(self) -> psycopg.Connection[Any]:
        """The connection, which answers: it may be lost without anybody having told."""
        connection = self.connection()
        try:
            connection.execute("SELECT 1")
        except psycopg.OperationalError:
            connection.close()
            connection = self.connection()
        return connection

    def settle(self) -> None:
        """Settings of the connection, again where extensions came since."""
        if self._open is not None:
            self._open.execute(_SETTINGS)

    def ask(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """The rows of a query that changes nothing, asked once more where the connection was
        lost."""
        with self._lock, told(self.url):
            for last in (False, True):
                connection = self.connection()
                try:
                    with connection.cursor(binary=True) as cursor:
                        return cursor.execute(query, given or None).fetchall()  # type: ignore[call-overload,no-any-return]
                except psycopg.OperationalError:
                    if last or not connection.closed:
                        raise
        raise AssertionError

    def table(self, name: str, first: Segment | None = None) -> str:
        """A table's name in SQL; with `first`, of those that belong to the segments from it on.

        A compaction makes others, so that who counts on old numbers of rows finds nothing.
        """
        suffix = f"_{first.number}_{first.digest[:8]}" if first else ""
        return f'"{self.schema}".{name}{suffix}'

    def fetch(self, table: str, columns: str, begin: int, end: int) -> list[tuple[Any, ...]]:
        """Columns of the rows from `begin` to before `end` of a table, in their order."""
        query = f"SELECT {columns} FROM {table} WHERE row >= %s AND row < %s ORDER BY row"
        return self.ask(query, begin, end)

    def fetch_some(self, table: str, columns: str, chosen: np.ndarray) -> list[tuple[Any, ...]]:
        """Columns of these rows, which must differ and rise, of a table. Damaged where one is not
        there."""
        query = f"SELECT {columns} FROM {table} WHERE row = ANY(%s::int[]) ORDER BY row"
        found = self.ask(query, chosen.tolist())
        if len(found) != len(chosen):
            raise self.lacking(table)
        return found

    def lacking(self, table: str) -> Damaged:
        """What to raise where rows are missing."""
        return Damaged(f"{self.url}: {table} has not all of its rows; {MEND}")

    def close(self) -> None:
        """Let the connection go."""
        if self._open is not None and self._pid == os.getpid():
            self._open.close()

    def __del__(self) -> None:
        if getattr(self, "_open", None) is not None:
            self.close()


# ---- COPY … FROM STDIN (FORMAT binary) ---------------------------------------------------------

_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack("!h", -1)
_LENGTH, _LIST = struct.Struct("!i"), struct.Struct("!iiIii")
_TEXT = 25  # OID of type text
Value = bytes | None  # of one column, as the server receives it; None: NULL


def copy_in(
    connection: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[bytes]
) -> None:
    """Writes rows that `record`, or an array of such records, made."""
    with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(_BEGIN)
        for row in rows:
            copy.write(row)
        copy.write(_END)


def record(*values: Value) -> bytes:
    """A row of these."""
    parts = [struct.pack("!h", len(values))]
    for value in values:
        parts.append(_LENGTH.pack(-1) if value is None else _LENGTH.pack(len(value)) + value)
    return b"".join(parts)


def integer(value: int) -> bytes:
    """An int."""
    return _LENGTH.pack(value)


def double(value: float | None) -> Value:
    """A float8."""
    return None if value is None else struct.pack("!d", value)


def text(value: str | None) -> Value:
    """A text."""
    return None if value is None else value.encode()


def texts(values: Sequence[str]) -> bytes:
    """A text[]."""
    if not values:
        return struct.pack("!iiI", 0, 0, _TEXT)
    parts = [_LIST.pack(1, 0, _TEXT, len(values), 1)]
    for value in values:
        data = value.encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def lexemes(words: Sequence[str]) -> bytes:
    """A tsvector of these words, no one twice, without positions."""
    parts = [_LENGTH.pack(len(words))]
    for word in words:
        parts += (word.encode(), b"\0\0\0")
    return b"".join(parts)
