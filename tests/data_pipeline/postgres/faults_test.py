"""Knowledge bases in PostgreSQL: writers, kills, servers that go away, and what is refused."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.kb.change import open_change
from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.kb.text_index import text_index
from tests.support import bases, postgres
from tests.support.bases import FIRST, LIFE, entity
from tests.support.fixtures import refusal
from tests.support.kb_kills import assert_kept
from tests.support.paths import ROOT
from tests.support.postgres import PostgresServer, schema


def test_one_changes_it_at_a_time(built: str, tmp_path: Path) -> None:
    with open_change(built):
        line = refusal(lambda: open_change(built))
        assert f"in use by process {os.getpid()} on " in line
        assert "wait for it, or stop it" in line
        assert open_kb(built).generation == 3  # who reads is not kept out
        with open_change(f"{built}_other"):  # another schema is another's
            pass
    bases.remove(built, "Q0")


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(
    url: str, server: PostgresServer, cache: Path
) -> None:
    bases.build(url, FIRST, features=True)
    assert_kept(url, 0.3)
    bases.remove(url, "Q0")  # the lock went with the process
    assert not [*cache.glob("*/*")]


def test_what_was_encoded_is_not_encoded_again(built: str, cache: Path) -> None:
    """A change that is killed before it is written goes on with its features."""
    encoded = []

    def fill(segment: Any, some: Any) -> dict[str, Any]:
        if not segment.has("entity_text"):
            encoded.append(len(some))
            return bases.filled(segment, some)
        return {}

    def killed(segment: Any, some: Any) -> dict[str, Any]:
        fill(segment, some)
        raise KeyboardInterrupt

    for how in (killed, fill):
        with open_change(built, how) as change:
            if how is killed:
                with pytest.raises(KeyboardInterrupt):
                    change.add([entity("N")])
                assert [*cache.glob("*/000004.partial/entity_text.npy")]
            else:
                change.add([entity("N")])
    assert encoded == [1]
    assert open_kb(built).generation == 4
    assert not [*cache.glob("*/*")]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that may be stopped."""
    with postgres.running() as server:
        yield server


def test_a_server_that_goes_away_ends_in_one_line(own_server: PostgresServer) -> None:
    url = own_server.url("kb")
    for step in LIFE[:3]:
        step(url)
    kb = open_kb(url)
    index, rows = text_index(kb), list(kb)

    def fill(segment: Any, some: Any) -> dict[str, Any]:
        told = bases.filled(segment, some)
        own_server.stop(signal.SIGQUIT)
        if some[0].id == "back":
            own_server.start()
        return told

    with open_change(url, fill) as change:  # between reading and writing
        line = refusal(lambda: change.add([entity("N")]))
    assert "cannot be reached" in line
    for call in (lambda: list(kb), lambda: index.names("x", 1), lambda: open_kb(url)):
        assert "cannot be reached" in refusal(call)
    assert "cannot be reached" in refusal(lambda: open_change(url))
    own_server.start()
    assert list(kb) == rows  # connected again, without a word
    assert index.names("Second", 1)[0].tolist() == [7]
    assert open_kb(url).reference() == kb.reference()
    with open_change(url, fill) as change:  # it was away while features were made
        assert change.add([entity("back")]).generation == 4
    own_server.stop(signal.SIGQUIT)
    own_server.start()
    open_kb(url).verify()
    assert open_kb(url).generation == 4


def test_a_server_that_dies_while_it_writes_loses_nothing(own_server: PostgresServer) -> None:
    url = own_server.url("kb")
    bases.build(url, FIRST, features=True)
    own_server.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(20); RETURN NEW; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON kb.change EXECUTE FUNCTION slow()",
    )
    stop = threading.Timer(0.5, lambda: own_server.stop(signal.SIGQUIT))
    with open_change(url, bases.filled) as change:
        stop.start()
        line = refusal(lambda: change.add([entity("N")]))
    stop.join()
    assert "PostgreSQL went away" in line
    assert "nothing was lost" in line
    own_server.start()
    assert open_kb(url).generation == 1
    own_server.run("DROP TRIGGER slow ON kb.change")
    bases.add(url, [entity("N")], features=True).verify()


def test_places_are_refused_in_one_line(server: PostgresServer, url: str) -> None:
    for place, told in (
        ("postgresql://me:secret@host/db", "a URL is stored and printed, so it may hold no passw"),
        ("postgresql://host/db?password=secret", "put it into ~/.pgpass or PGPASSWORD"),
        ("postgresql://me:secret@/db?host=/x#y", "it may hold no password"),
        (server.url("Upper"), "'Upper' cannot be a schema"),
        (server.url("a;b"), "cannot be a schema"),
        (server.url("pg_x"), "cannot be a schema"),
        ("postgresql://host/db?odd=1", "is no URL of a database"),
        ("postgresql://host:port/db", "cannot be reached"),
        ("postgresql://127.0.0.1:1/db", "cannot be reached"),
        ("postgresql://nobody.invalid/db", "cannot be reached"),
        (server.url("x", database="none"), 'database "none" does not exist'),
        (server.url("x", user="none"), 'role "none" does not exist'),
        (url, "there is no knowledge base; make one with drin-jax kb build"),
        ("mysql://host/db", "only folders of this machine's file systems and postgresql:// are"),
    ):
        for call in (lambda p=place: open_kb(p), lambda p=place: open_change(p)):
            if place != url:
                assert told in refusal(call), place
                assert "secret" not in refusal(call)
        assert told in refusal(lambda p=place: open_kb(p))


def test_a_wrong_password_is_told(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = server.root / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all walled scram-sha-256\n" + before)
    server.run("CREATE ROLE walled LOGIN SUPERUSER PASSWORD 'right'", "SELECT pg_reload_conf()")
    place = server.url("walled", user="walled")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    for _ in range(100):  # until the rules are read
        line = refusal(lambda: open_kb(place))
        if "password" in line:
            break
        time.sleep(0.02)
    assert 'password authentication failed for user "walled"' in line
    monkeypatch.setenv("PGPASSWORD", "right")
    assert bases.build(place, FIRST).generation == 1


def test_what_a_database_lacks_is_told(server: PostgresServer) -> None:
    server.run(
        "CREATE ROLE guest LOGIN",
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'",
        "CREATE DATABASE ascii TEMPLATE template0 LC_CTYPE 'C' LC_COLLATE 'C' LOCALE_PROVIDER libc",
        "CREATE DATABASE bare",
        "CREATE SCHEMA taken",
        "CREATE TABLE taken.mine (a int)",
    )
    for place, features, told in (
        (server.url("x", database="latin"), False, "encoding is LATIN1"),
        (server.url("x", database="ascii"), False, "LC_CTYPE has ASCII letters alone"),
        (server.url("x", database="bare", user="guest"), False, "permission denied"),
        (server.url("taken"), False, "schema taken holds other tables"),
        (server.url("x", user="guest"), False, "PostgreSQL refuses this (permission denied"),
    ):
        line = refusal(lambda p=place, f=features: bases.build(p, FIRST, features=f))
        assert told in line, line
        assert "there is no knowledge base" in refusal(lambda p=place: open_kb(p))
    # Without pgvector names alone can be kept.
    library = next(server._programs.parent.rglob("extension/vector.control"), None)
    bare = server.url("x", database="bare")
    if library is not None and os.access(library, os.W_OK):
        aside = library.with_suffix(".aside")
        library.rename(aside)
        try:
            line = refusal(lambda: bases.build(bare, FIRST, features=True))
            assert "needs the extension vector 0.8" in line
            assert bases.build(bare, FIRST).generation == 1
        finally:
            aside.rename(library)


def test_without_psycopg_there_is_one_line(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from data_pipeline.kb.knowledge_base import open_kb\n"
        "open_kb('postgresql://host/db')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    line = done.stderr.strip().splitlines()[-1]
    assert "psycopg is missing" in line
    assert 'pip install "drin_jax[postgres]"' in line


def test_verify_names_what_was_changed_behind_its_back(url: str, server: PostgresServer) -> None:
    for number, (change, told) in enumerate(
        [
            ("UPDATE {entity} SET description = 'other' WHERE row = 7", "000003/rows"),
            ("UPDATE {entity} SET images = '{{x}}' WHERE row = 0", "000001/rows"),
            ("DELETE FROM {entity} WHERE row = 2", "000001/rows"),
            ("DELETE FROM {form} WHERE row = 6", "000003/rows"),
            ("UPDATE {words} SET words = '' WHERE row = 6", "000003/rows"),
            ("UPDATE {dead} SET row = 0 WHERE row = 4", "000002/dead"),
            (
                "UPDATE {entity_text} SET value = set_byte(value, 2, 1) WHERE row = 8",
                "000003/entity_text",
            ),
            ("UPDATE {entity_text} SET value = '' WHERE row = 1", "000001/entity_text"),
            ("DELETE FROM {entity_has_text} WHERE row = 6", "000003/entity_has_text"),
        ]
    ):
        own = f"{url}_{number}"
        for step in LIFE[:3]:
            step(own)
        kb = open_kb(own)
        names = ("entity", "form", "words", "dead", "entity_text", "entity_has_text")
        server.run(change.format(**{name: kb.table(name) for name in names}))
        line = refusal(open_kb(own).verify)
        assert f"damaged since it was written: {told}; restore it from a copy" in line
        assert schema(own) in line
        server.run(f"DROP SCHEMA {schema(own)} CASCADE")
    server.run(f"CREATE SCHEMA {schema(url)}")
    assert "there is no knowledge base" in refusal(lambda: open_kb(url))
    assert "was compacted or deleted" in refusal(lambda: list(kb))
