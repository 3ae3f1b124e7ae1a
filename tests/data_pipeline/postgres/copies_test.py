"""Copies of knowledge bases between folders and PostgreSQL are the same, or not there."""

import contextlib
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.kb.change import open_change
from data_pipeline.kb.knowledge_base import open_kb
from data_pipeline.loader import GraphTables
from data_pipeline.schema import Entity, UserError
from drin_jax.extract import preparation
from tests.support import bases, picture_world
from tests.support.bases import FIRST, MORE, entity
from tests.support.commands import assert_one_clear_line, run, start
from tests.support.fixtures import refusal
from tests.support.postgres import PostgresServer, schema


def bytes_of(path: Path) -> dict[str, bytes]:
    """Of everything that lasts."""
    files = [path / "kb.json", *path.glob("0*/*")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


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
