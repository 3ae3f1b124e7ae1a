"""A knowledge base in PostgreSQL, on a real server: what it holds and finds is a folder's."""

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.graphs import GraphTables
from data_pipeline.kb import postgres_change
from data_pipeline.kb.change import open_change
from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.kb.text_index import fold, text_index
from data_pipeline.readers import load
from data_pipeline.retrieval.union import by_union
from data_pipeline.sample import world
from data_pipeline.schema import PADDING, Entity, UserError
from drin_jax.extract import preparation
from tests.support import bases, picture_world
from tests.support.bases import FIRST, LIFE, MORE, assert_features, entity
from tests.support.commands import assert_one_clear_line, run, start
from tests.support.fixtures import refusal
from tests.support.postgres import PostgresServer, schema


def bytes_of(path: Path) -> dict[str, bytes]:
    """Of everything that lasts."""
    files = [path / "kb.json", *path.glob("0*/*")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


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
    replace, seen = postgres_change._Tables.replace, []

    def replaced(tables: Any) -> None:
        seen.append(list(kb) == before == list(open_kb(impatient)))
        assert text_index(kb).names("Second", 1)[0].tolist() == [7]
        replace(tables)

    monkeypatch.setattr(postgres_change._Tables, "replace", replaced)
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


def test_copies_are_the_same_bytes(url: str, server: PostgresServer, tmp_path: Path) -> None:
    """Folder, database, another database, folder; half precision and odd rows too."""

    def fill(segment: Any, some: Any) -> dict[str, Any]:
        vectors = np.stack([bases.vector(one) for one in some]) % 997
        segment.write("entity_text", vectors.astype(np.float16))
        segment.write("entity_image", np.zeros((len(some), 0), np.float32))
        return {}

    odd = Entity("a\nb'\"|", "Ω" * 9999, "d\t\\" * 9, "/p/a.png", ("", "x"), "t", -1e300, ("b",))
    first, second = tmp_path / "first", tmp_path / "second"
    for entities in ([odd, *FIRST], MORE):
        with open_change(first, fill) as change:
            if change.begun:
                change.add(entities, update=True)
            else:
                change.build(entities, name="odd", root="/p", made_from={"a": [1.0, "é"]})
    wanted = bases.remove(first, "Q0")
    places = [first, url, server.url(schema(url) + "_2"), second]
    for source, target in pairwise(places):
        copied = run("drin_jax.kb", "copy", str(source), str(target))
        assert copied.returncode == 0, copied.stderr
        kb = open_kb(target)
        kb.verify()
        assert kb.reference() == wanted.reference()
        assert list(kb) == list(wanted)
        assert kb.array("entity_text").dtype == np.float32
    assert bytes_of(second) == bytes_of(first)
    again = run("drin_jax.kb", "copy", str(first), url)
    assert again.returncode == 0, "what is there already is no mistake"
    bases.remove(second, "Q1")
    for other in (url, str(first)):
        refused = run("drin_jax.kb", "copy", str(second), other)
        assert_one_clear_line(refused, "holds a knowledge base already")
    assert open_kb(url).reference() == wanted.reference()


def test_damage_is_not_copied(built: str, server: PostgresServer, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with open_change(whole) as change:
        change.copy(open_kb(built))
    file = whole / "000001" / "entity_text.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for target in (tmp_path / "copy", server.url(f"{schema(built)}_copy")):
        with open_change(target) as change:
            line = refusal(lambda change=change: change.copy(open_kb(whole)))
        assert "damaged since it was written: 000001/entity_text" in line
        assert "there is no knowledge base" in refusal(lambda target=target: open_kb(target)) or (
            "kb.json: is missing" in refusal(lambda target=target: open_kb(target))
        )
    odd = tmp_path / "odd"
    bases.build(odd, [entity("a"), entity("b", "N\0")])
    with open_change(server.url(f"{schema(built)}_odd")) as change:
        assert "'b' has a character NUL" in refusal(lambda: change.copy(open_kb(odd)))


def test_a_store_opens_the_copy_as_its_own(built: str, tmp_path: Path) -> None:
    """Made with a folder it opens against the database's copy, and the other way round."""
    world = tmp_path / "world"
    picture_world.write(world, 6, 6)
    folder, copy = tmp_path / "kb", f"{built}_world"
    config = picture_world.config(world, tmp_path / "encoders")
    flags = picture_world.command_line(config)
    assert run("drin_jax.kb", "build", str(folder), *flags).returncode == 0
    assert run("drin_jax.kb", "copy", str(folder), copy).returncode == 0
    made = []
    for kb in (str(folder), copy):
        config.data.kb, config.data.store = kb, str(tmp_path / f"store{len(made)}")
        made.append(preparation.prepare(config, tmp_path / "run"))
    # Vectors of the database are searched by its index, whose last bits may differ.
    for name in ("test_gold_entity", "mention_text"):
        np.testing.assert_array_equal(made[0].array(name), made[1].array(name))
    for name in ("entity_text", "entity_clip_image", "entity_has_image"):
        np.testing.assert_array_equal(made[0].array(name), made[1].array(name))
    batches = [GraphTables(store, "train").batch(np.array([2, 0])) for store in made]
    for name in ("entity_image", "entity_text", "entity_has_image"):
        np.testing.assert_array_equal(batches[1][name], batches[0][name])
    assert made[1].kb.path == copy
    assert made[0].strings("entity_name") == made[1].strings("entity_name")
    for store, kb in zip(made, (copy, str(folder)), strict=True):
        config.data.kb, config.data.store = kb, str(store.path)
        opened = preparation.prepare(config, tmp_path / "run")
        assert str(opened.kb.path) == kb
        assert opened.fingerprint() == store.fingerprint()
        opened.verify()
    folder.rename(tmp_path / "gone")
    config.data.kb, config.data.store = copy, str(made[0].path)
    assert preparation.prepare(config, tmp_path / "run").kb.path == copy
    line = refusal(lambda: preparation.prepare(changed(config, built), tmp_path / "run"))
    assert "refers to another knowledge base than data.kb" in line
    place = f"--workdir={tmp_path / 'other'}"
    for flag, told in (
        (f"--config.data.kb={built}_none", "there is no knowledge base; make one"),
        (f"--config.data.store={built}", "only folders of this machine's file systems"),
    ):
        assert_one_clear_line(run("drin_jax.main", *flags, place, flag), built, told)


def changed(config: Any, kb: str) -> Any:
    config.data.kb = kb
    return config


def test_the_union_finds_the_same_golds(url: str, tmp_path: Path) -> None:
    """On the sample's world, by names and words."""
    root = world.generate(tmp_path / "sample", names=40, sizes=(20, 20, 200))
    corpus = load("sample", root, name="sample")
    mentions, found = [m for m in corpus.mentions if m.gold][:200], []
    for place in (tmp_path / "kb", url):
        with open_change(place) as change:
            kb = change.build(corpus.entities, name="sample")
        rows = by_union(kb, text_index(kb), mentions, 20).rows
        found.append(rows == kb.find([str(m.gold) for m in mentions])[:, None])
    hits = [some.any(1).mean() for some in found]
    first = [some[:, 0].mean() for some in found]
    assert hits[1] > hits[0] - 0.01 > 0.9, hits
    assert first[1] > first[0] - 0.05, first  # among entities of one name


# ---- names, words and vectors


def test_odd_names_are_found(url: str) -> None:
    rows = [
        entity("1", "Łódź", "miasto w Polsce"),
        entity("2", "東京都", "capital", "Tōkyō"),
        entity("3", "Москва (city)", "1e5 3d o'neil \\ back_slash", "Moscow"),
        entity("4", "John Fitzgerald Kennedy", "president", "% _ ' \" ; --"),
        entity('it\'s\n"a"\\/b', "x" * 10_000, "y " * 10_000),
        entity("6", "", "nameless"),
        entity("7", "ﷺ" * 300, "long when folded"),
    ]
    kb = bases.build(url, rows)
    index = text_index(kb)
    assert list(kb) == rows
    for name, row in [
        *(("Lodz", 0), ("ŁÓDŹ", 0), ("東京都", 1), ("tokyo", 1), ("МОСКВА", 2), ("moskow", 2)),
        *(("JFK", 3), ("J. F. K.", 3), ("J. Kennedy", 3), ("J F Kennedy", 3), ("Kenedy", 3)),
        *(("x" * 10_000, 4), ("ﷺ" * 300, 6)),
    ]:
        assert index.names(name, 1)[0].tolist() == [row], name
    assert kb.find(['it\'s\n"a"\\/b']).tolist() == [4]
    for text, row in (("Polsce!", 0), ("3D 1E5", 2), ("O'Neil", 2), ("Łódź", 0), ("slash", 2)):
        assert index.words(text, 1)[0].tolist() == [row], text
    for odd in ("", "...", "\0", "\ud800", "')--", "%_\\", "q" * 10_000, "\x1b[2J"):
        assert len(index.names(odd, 5)[0]) == len(index.words(odd, 5)[0]) == 0, odd
    assert [index.knows(one) for one in ("moscow", "москва", "jfk", "")] == [
        True,
        True,
        False,
        False,
    ]
    kb.verify()


@pytest.mark.parametrize("width", [4, 2100, 4100])
def test_nearest_are_those_of_all_rows(url: str, width: int) -> None:
    """By an index of vectors, of half vectors, and where there is none."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((60, width)).astype(np.float32) * 1e9
    table[7] = 0

    def fill(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_text", table[: len(some)])
        segment.write("entity_clip_text", table[: len(some)])
        return {}

    with open_change(url, fill) as change:
        change.build([entity(f"Q{i}") for i in range(60)], name="vectors")
    kb = bases.remove(url, "Q3", "Q5")
    queries = np.concatenate([table[[3, 9]] + 1e8, np.zeros((1, width), np.float32)])
    keys = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    cosine = keys @ (queries[:2] / np.linalg.norm(queries[:2], axis=1, keepdims=True)).T
    cosine[[3, 5, 7]] = -2
    wanted = np.argsort(-cosine.T, axis=1)
    for name in ("entity_text_edge", "entity_text", "entity_clip_text"):
        rows, cosines = text_index(kb).nearest(name, queries, 10)
        assert (rows.dtype, cosines.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(rows[:2], wanted[:, :10])
        np.testing.assert_allclose(
            cosines[:2], np.take_along_axis(cosine.T, wanted, 1)[:, :10], atol=2e-3
        )
        every = text_index(kb).nearest(name, queries[:1], 60)[0][0]
        assert {*every.tolist()} == {*range(60)} - {3, 5, 7} | {PADDING}
        assert (rows[2] == PADDING).all() or name == "entity_clip_text" or width == 4100


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


# ---- the command


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


def test_a_killed_copy_leaves_nothing_half(url: str, tmp_path: Path) -> None:
    rng, killed = np.random.default_rng(3), 0
    source = tmp_path / "source"
    bases.build(source, [entity(f"Q{i}", f"Name {i}") for i in range(3000)], features=True)
    for target in (tmp_path / "copy", url):
        for patience in (*rng.uniform(0.02, 0.6, 3), 100):
            process = start("drin_jax.kb", "copy", str(source), str(target))
            deadline = time.monotonic() + patience
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
                with contextlib.suppress(UserError):  # there is none yet
                    assert open_kb(target).reference() == open_kb(source).reference()
        assert process.wait() == 0, process.communicate()
        kb = open_kb(target)
        kb.verify()
        assert kb.reference() == open_kb(source).reference()
    assert killed > 1
