"""A knowledge base in PostgreSQL, on a real server, is a folder's, whole for all who share it."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.kb import postgres_tables
from data_pipeline.kb.change import open_change
from data_pipeline.kb.folded_names import fold
from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.kb.text_index import text_index
from data_pipeline.schema import PADDING, UserError
from tests.support import bases
from tests.support.bases import FIRST, LIFE, assert_features, entity
from tests.support.commands import assert_one_clear_line, run
from tests.support.fixtures import refusal
from tests.support.postgres import PostgresServer, schema


def test_it_is_what_a_folder_is_after_every_change(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "kb"
    for step in LIFE:
        wanted, kb = step(folder), step(url)
        assert kb.reference() == wanted.reference()
        assert step(url).reference() == wanted.reference()  # once more: nothing changes
        assert [s.plain() for s in kb.segments] == [s.plain() for s in wanted.segments]
        assert (kb.name, kb.meta, kb.tables) == (wanted.name, wanted.meta, wanted.tables)
        assert list(kb) == list(wanted)
        assert kb[1:4] == wanted[1:4]
        assert (kb.ids, kb.names) == (wanted.ids, wanted.names)
        assert kb.alive.tolist() == wanted.alive.tolist()
        ids = [*wanted.ids, "none", "\ud800", "\0", "Q0"]
        assert kb.find(ids).tolist() == wanted.find(ids).tolist()
        rows = np.array([3, 0, 3])
        assert kb.taken("aliases", rows) == wanted.taken("aliases", rows)
        assert kb.kept_dtype("entity_text") == "float32"
        assert_features(kb)
        kb.verify()
        mine, theirs = text_index(kb), text_index(wanted)
        for one in bases.content(kb).values():
            for name in (one.name, *one.aliases):
                found, asked = mine.names(name, 1)[0].tolist(), theirs.names(name, 1)[0].tolist()
                assert found == asked, name
                assert mine.knows(fold(name)) == theirs.knows(fold(name)), name
            assert mine.words(one.description, 9)[0].tolist() == (
                theirs.words(one.description, 9)[0].tolist()
            )
    assert kb.size > 100_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.add([entity("Q9"), entity("Q5")]), "has 'Q5' already; nothing was added"),
        (lambda c: c.add([entity("a"), entity("a")], update=True), "'a' is given twice"),
        (lambda c: c.add([entity("Q9")]), "adding to it takes its encoders"),
        (lambda c: c.add([entity("\0")]), "'\\x00' has a character NUL, which PostgreSQL cannot"),
        (lambda c: c.add([entity("a", "b", "", "c\0")]), "'a' has a character NUL"),
        (lambda c: c.remove(["Q0", "Q1"]), "has no 'Q1'; nothing was removed"),
        (lambda c: c.remove(["\0"]), "nothing was removed"),
        (lambda c: c.remove(["Q0", "Q2", "Q3", "Q5", "R/0", "R 1"]), "nothing would be left"),
        (lambda c: c.build(FIRST, name="base"), "holds a knowledge base already"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(
    built: str, change: Callable[[Any], Any], told: str
) -> None:
    before = open_kb(built).reference()
    with open_change(built) as opened:
        assert told in refusal(lambda: change(opened))
    assert open_kb(built).reference() == before


def test_who_has_it_open_keeps_the_generation(built: str) -> None:
    opened = open_kb(built)
    index, reference, rows = text_index(opened), opened.reference(), list(opened)
    more = [entity(f"more{i}", "Second", "word3") for i in range(40)]
    bases.add(built, more, features=True)
    bases.remove(built, "Q3")
    bases.add(built, [entity("Q0", "Other")], features=True, update=True)
    for kb in (opened, open_kb(built, at=reference)):
        assert kb.reference() == reference
        assert list(kb) == rows
        assert kb.find(["Q0", "Q3", "more1"]).tolist() == [0, 3, PADDING]
        assert_features(kb)
        kb.verify()
        for some in (index, text_index(kb)):
            assert some.names("Second", 5)[0].tolist() == [7]
            found, scores = some.words("word3", 5)
            assert (found.tolist(), scores[0] > 0) == ([3], True)
            assert not some.knows("other")
            assert 3 in some.nearest("entity_text_edge", np.ones((1, 3), np.float32), 9)[0]
    bases.compact(built)
    for call in (lambda: list(opened), lambda: index.names("Second", 5), lambda: opened[0]):
        assert "was compacted or deleted since it was opened" in refusal(call)
    assert "built anew or compacted" in refusal(lambda: open_kb(built, at=reference))


def test_who_reads_does_not_wait_for_a_writer(built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for rows that are written nor for indexes that are made."""
    impatient = built.replace("?host", "?options=-c%20statement_timeout%3D1000&host")
    kb, before = open_kb(impatient), list(open_kb(built))
    replace, seen = postgres_tables.Tables.replace, []

    def replaced(tables: Any) -> None:
        seen.append(list(kb) == before == list(open_kb(impatient)))
        assert text_index(kb).names("Second", 1)[0].tolist() == [7]
        replace(tables)

    monkeypatch.setattr(postgres_tables.Tables, "replace", replaced)
    bases.compact(built)
    assert seen == [True]


def test_readers_see_whole_generations_while_others_write(url: str) -> None:
    bases.build(url, FIRST, features=True)
    wanted, wrong, done = {frozenset(one.id for one in FIRST)}, [], threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                kb = open_kb(url)
                ids = frozenset(bases.content(kb))
                assert_features(kb)
            except UserError as error:
                if "was compacted or deleted since it was opened" not in str(error):
                    wrong.append(error)
            else:
                if ids not in wanted:
                    wrong.append(ids)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for one in readers:
        one.start()
    now = {one.id for one in FIRST}
    for turn in range(8):
        more = [entity(f"N{turn}-{i}") for i in range(50)]
        wanted.add(frozenset(now | {one.id for one in more}))
        bases.add(url, more, features=True)
        now |= {one.id for one in more}
        wanted.add(frozenset(now - {f"N{turn}-7"}))
        bases.remove(url, f"N{turn}-7")
        now.remove(f"N{turn}-7")
        if turn % 3 == 2:
            bases.compact(url)
    done.set()
    for one in readers:
        one.join()
    assert not wrong, wrong[:2]
    assert bases.content(open_kb(url)).keys() == now


def test_threads_share_a_knowledge_base(built: str) -> None:
    kb, wrong = open_kb(built), []
    index = text_index(kb)

    def search() -> None:
        for i in (0, 3, 5) * 10:
            if index.names(f"First {i}", 1)[0].tolist() != [i] or kb[i].id != f"Q{i}":
                wrong.append(i)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


def test_who_is_done_leaves_no_connection(built: str, server: PostgresServer) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'process%'"
    before = server.run(query)[0][0]
    for _ in range(20):
        kb = open_kb(built)
        kb.array("entity_text")[1]
        text_index(kb).knows("first")
    deadline = time.monotonic() + 5  # the server sees it a moment later
    while server.run(query)[0][0] > before + 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.run(query)[0][0] <= before + 1


def test_a_life_of_a_knowledge_base(url: str, tmp_path: Path) -> None:
    def kb(*args: Any) -> Any:
        return run("drin_jax.kb", *map(str, args))

    def lines(*rows: dict[str, Any]) -> str:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"--entities={tmp_path / 'rows.jsonl'}"

    rows = [
        {"id": "Q1", "name": "Michael Jordan", "aliases": ["MJ"], "description": "basketball"},
        {"id": "Q2", "name": "Michael I. Jordan", "description": "professor of statistics"},
        {"id": "a/b", "name": "Jordan", "description": "country"},
    ]
    assert_one_clear_line(kb("add", url, lines(*rows)), "there is no knowledge base; make one")
    built = kb("build", url, lines(*rows))
    assert built.returncode == 0, built.stderr
    assert f"{url}: {schema(url)}, generation 1: 3 entities in 1 segments" in built.stdout
    text = "--text=The professor, Jordan, spoke of statistics"
    found = kb("search", url, "--mention=Jordan", text, "--k=2", "--json").stdout.splitlines()
    assert [json.loads(row)["id"] for row in found] == ["Q2", "a/b"]
    new = lines({"id": "Q9", "name": "Scottie Pippen"})
    assert "1 entities added" in kb("add", url, new).stdout
    assert "1 entities are there already" in kb("add", url, new).stdout
    assert_one_clear_line(kb("add", url, lines(rows[0])), "has 'Q1' already; nothing was added")
    assert "1 entities removed" in kb("remove", url, "--ids=a/b").stdout
    assert "3 entities in 1 segments" in kb("compact", url).stdout
    assert kb("verify", url).stdout == f"{url}: whole, 3 entities at generation 4\n"
    told = json.loads(kb("info", url, "--json").stdout)
    assert (told["generation"], told["entities"], told["removed or replaced"]) == (4, 3, 0)
    copied = kb("copy", url, tmp_path / "kb")
    assert f"{tmp_path / 'kb'}: {schema(url)}, generation 4" in copied.stdout
    assert_one_clear_line(kb("copy", url), "copy takes two places: from, to")
    assert_one_clear_line(kb("info", url, url), "info takes one knowledge base")
    with open_change(url):
        assert_one_clear_line(kb("compact", url), "in use by process", "wait for it, or stop it")
    shutil.rmtree(tmp_path / "kb")
