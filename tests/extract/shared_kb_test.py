"""One knowledge base for several data sets: encoded once, added to, seen as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.sample import tiny_bert
from data_pipeline.schema import ENTITY_ARRAYS, UserError
from data_pipeline.store.reader import Store
from drin_jax.extract import preparation
from tests.support import bases, commands, picture_world
from tests.support.commands import assert_one_clear_line, user_error
from tests.support.odd_pictures import photo
from tests.support.tolerance import assert_close

NEW = [
    {"id": "N/0", "name": "Name 0", "description": "a new thing", "image": "images/new.png"},
    {"id": "N1", "name": "Nobody yet", "aliases": ["Name 1"], "image": "images/not there.png"},
    {"id": "Q2", "name": "Name 2", "description": "thing number 2, replaced"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`world` with its own entities, `guest` with mentions alone, and `kb` of the world's."""
    folder = tmp_path_factory.mktemp("shared")
    picture_world.write(folder / "world", 6, 6)
    shutil.copytree(folder / "world", folder / "guest")
    (folder / "guest" / "entities.jsonl").unlink()
    rows = [json.loads(line) for line in (folder / "guest/mentions.jsonl").open()]
    with (folder / "guest" / "mentions.jsonl").open("w") as file:
        for row in rows[:6]:
            file.write(json.dumps(row | {"id": f"g{row['id']}", "text": row["text"] + " "}) + "\n")
    flags = picture_world.command_line(config(folder, "world"))
    built = commands.run("drin_jax.kb", "build", str(folder / "kb"), *flags)
    assert built.returncode == 0, built.stderr
    assert "generation 1: 6 entities in 1 segments" in built.stdout
    assert "encoder of text: " in built.stdout
    return folder


@pytest.fixture
def kb(folder: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return shutil.copytree(folder / "kb", tmp_path / "kb")


def config(folder: Path, data: str, kb: Path | None = None, **fields: Any) -> ConfigDict:
    made = picture_world.config(folder / data, folder / "encoders", **fields)
    made.data.kb = "" if kb is None else str(kb)
    return made


def assert_same_entities(found: Store | KnowledgeBase, wanted: Store, rows: Any = None) -> None:
    """The features of rows of one are all rows of the other's."""
    for name in ENTITY_ARRAYS:
        if name != "entity_text_edge":
            mine, theirs = (np.asarray(some.array(name)) for some in (found, wanted))
            assert_close(mine if rows is None else mine[rows], theirs)


def test_two_stores_share_one_knowledge_base(folder: Path, kb: Path, tmp_path: Path) -> None:
    alone = preparation.prepare(config(folder, "world"), tmp_path / "alone")
    assert alone.kb.path == tmp_path / "alone/store/kb"
    before = {file: file.stat().st_mtime_ns for file in kb.rglob("0*/*")}
    for data in ("world", "guest"):
        shared = preparation.prepare(config(folder, data, kb), tmp_path / data)
        assert not (shared.path / "kb").exists()
        assert shared.kb.path.resolve() == kb
        assert_same_entities(shared, alone)
        assert shared.strings("entity_id") == [f"Q{i}" for i in range(6)]
        shared.verify()
        if data == "world":
            for split in ("train", "valid", "test"):
                for name in ("candidates", "gold", "edges", "retrieval_score"):
                    mine, theirs = (s.array(f"{split}_{name}") for s in (shared, alone))
                    assert_close(mine, theirs)
            assert shared.report["counts"].items() >= {"mentions": alone.sizes["mentions"]}.items()
    assert {file: file.stat().st_mtime_ns for file in kb.rglob("0*/*")} == before
    # A store's own may be another's too.
    other = preparation.prepare(config(folder, "guest", alone.kb.path), tmp_path / "other")
    assert_same_entities(other, alone)


def test_training_links_to_a_knowledge_base(folder: Path, kb: Path, tmp_path: Path) -> None:
    """By the command, of a data set without entities, to two segments, of which one replaces a
    row; started again it says that there is more by now."""
    add(kb, folder)
    fields = {"train.epochs": 1, "train.batch": 2, "eval.batch": 2, "model.width": 8}
    fields |= {"model.layers": 1, "data.kb": str(kb)}
    flags = picture_world.command_line(config(folder, "guest", kb, **fields))
    flags.append(f"--workdir={tmp_path / 'run'}")
    trained = commands.run("drin_jax.main", *flags)
    assert trained.returncode == 0, trained.stderr
    assert Store.open(tmp_path / "run/store").sizes["entities"] == 9
    reports = [(tmp_path / "run/report.json").read_text()]
    bases.remove(kb, "N1")
    again = commands.run("drin_jax.main", *flags)
    assert again.returncode == 0, again.stderr
    assert f"{kb} is at generation 3; {tmp_path / 'run/store'} was made at 2" in again.stderr
    reports.append((tmp_path / "run/report.json").read_text())
    first, second = (json.loads(text)["splits"] for text in reports)
    assert first == second
    shutil.rmtree(kb)
    assert_one_clear_line(commands.run("drin_jax.main", *flags), "there is no knowledge base")


def add(kb: Path, folder: Path) -> None:
    """NEW, by the command, which knows the encoders itself."""
    photo(64, 48, seed=5).save(folder / "world/images/new.png")
    with (folder / "world" / "new.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in NEW)
    added = commands.run(
        "drin_jax.kb", "add", str(kb), f"--entities={folder / 'world/new.jsonl'}", "--update"
    )
    assert added.returncode == 0, added.stderr
    assert "8 entities in 2 segments" in added.stdout


def test_what_is_added_is_encoded_as_if_it_had_been_there(
    folder: Path, kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = preparation.prepare(config(folder, "guest", kb), tmp_path / "first")
    before = {name: np.array(first.array(name)) for name in ("entity_image", "train_candidates")}
    add(kb, folder)
    # The same entities in one data set, encoded at once.
    whole = shutil.copytree(folder / "world", tmp_path / "whole")
    rows = [json.loads(line) for line in (whole / "entities.jsonl").open()]
    with (whole / "entities.jsonl").open("w") as file:
        for row in [row for row in rows if row["id"] != "Q2"] + NEW:
            file.write(json.dumps({"description": "", **row}) + "\n")
    direct = preparation.prepare(
        config(tmp_path, "whole", **_encoders(folder)), tmp_path / "direct"
    )
    now = open_kb(kb)
    living = np.flatnonzero(now.alive)
    assert [now.ids[i] for i in living] == direct.strings("entity_id")
    assert_same_entities(now, direct, living)
    made = preparation.prepare(config(folder, "guest", kb), tmp_path / "later")
    assert made.kb.generation == 2
    assert_same_entities(made, direct, living)
    assert now.ids.index("N/0") in made.array("train_candidates")
    assert now.ids.index("Q2") not in made.array("train_candidates")  # the row that was replaced
    # The first store sees what was there, and a line says so.
    capsys.readouterr()
    again = preparation.prepare(config(folder, "guest", kb), tmp_path / "first")
    told = capsys.readouterr().err
    assert told == (
        f"{kb} is at generation 2; {again.path} was made at 1 and sees it as it was then\n"
    )
    assert (again.kb.generation, again.sizes["entities"]) == (1, 6)
    for name, array in before.items():
        np.testing.assert_array_equal(again.array(name), array)
    # Compacted, it is another.
    bases.compact(kb)
    assert_same_entities(open_kb(kb), direct)
    line = user_error(lambda: Store.open(tmp_path / "later/store"))
    assert f"{tmp_path}/later/store: its knowledge base cannot be read" in line
    assert "built anew or compacted since" in line
    shutil.rmtree(kb)
    line = user_error(lambda: Store.open(tmp_path / "later/store"))
    assert "its knowledge base cannot be read" in line
    assert "there is no knowledge base" in line


def _encoders(folder: Path) -> dict[str, str]:
    names = {"text": "text", "clip": "clip", "image": "resnet"}
    return {f"encoders.{name}": str(folder / "encoders" / place) for name, place in names.items()}


def test_a_moved_pair_stays_a_pair(folder: Path, tmp_path: Path) -> None:
    """The store names the knowledge base by the way from one to the other."""
    (tmp_path / "here").mkdir()
    kb = shutil.copytree(folder / "kb", tmp_path / "here/kb")
    preparation.prepare(config(folder, "guest", kb), tmp_path / "here/run")
    (tmp_path / "here").rename(tmp_path / "there")
    Store.open(tmp_path / "there/run/store").verify()
    (tmp_path / "there/kb").rename(tmp_path / "kb")
    line = user_error(lambda: Store.open(tmp_path / "there/run/store"))
    assert "its knowledge base cannot be read" in line


def _other_text(folder: Path) -> dict[str, str]:
    tiny_bert.write(folder / "other text", seed=1)
    return {"encoders.text": str(folder / "other text")}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (_other_text, "encoder files: text '"),
        (lambda folder: {"text.entity": "{name}"}, "text.entity '"),
        (lambda folder: {"encoders.entity_objects": 2}, "encoders.entity_objects 1 -> 2"),
        (lambda folder: {"image.min_side": 20}, "image.min_side 8 -> 20"),
        (lambda folder: {"encoders.clip": "", "encoders.objects": ""}, "encoder files: clip '"),
    ],
)
def test_other_encoders_are_refused_by_name(
    folder: Path, tmp_path: Path, fields: Callable[[Path], dict[str, Any]], told: str
) -> None:
    made = config(folder, "guest", folder / "kb", **fields(folder))
    line = user_error(lambda: preparation.prepare(made, tmp_path / "work"))
    assert f"{folder / 'kb'}: was built by other encoders (" in line
    assert told in line
    assert not (tmp_path / "work" / "store").exists()


def test_the_same_encoders_elsewhere_are_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "encoders/text", tmp_path / "text")
    made = config(folder, "guest", folder / "kb", **{"encoders.text": str(tmp_path / "text")})
    preparation.prepare(made, tmp_path / "work")


def test_what_no_store_can_be_made_of_is_told(folder: Path, tmp_path: Path) -> None:
    bases.build(tmp_path / "bare", [bases.entity("Q1")])
    bare = config(folder, "guest", tmp_path / "bare")
    assert "has no features; build it with the encoders" in user_error(
        lambda: preparation.prepare(bare, tmp_path / "work")
    )
    with pytest.raises(UserError, match="there is no knowledge base"):
        preparation.prepare(config(folder, "guest", tmp_path / "none"), tmp_path / "work")
    with pytest.raises(UserError, match=r"entities\.jsonl is missing"):
        preparation.prepare(config(folder, "guest"), tmp_path / "work")
    assert not (tmp_path / "work" / "store").exists()


def test_a_store_refuses_what_is_not_its_knowledge_base(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    preparation.prepare(config(folder, "guest", folder / "kb"), work)
    bases.build(tmp_path / "other", [bases.entity("Q1")])
    line = user_error(
        lambda: preparation.prepare(config(folder, "guest", tmp_path / "other"), work)
    )
    assert f"refers to another knowledge base than data.kb = {tmp_path / 'other'}" in line
    meta = json.loads((work / "store/store.json").read_text())
    for change, told in (
        ({"schema": 2}, "schema version 2, but this program reads 3; delete"),
        ({"kb": {}}, "'kb' is odd"),
        ({"kb": 3}, "'kb' is missing or odd"),
        ({"kb": meta["kb"] | {"path": "../nowhere"}}, "there is no knowledge base"),
        ({"kb": meta["kb"] | {"fingerprint": "0"}}, "built anew or compacted"),
        ({"kb": meta["kb"] | {"generation": 0}}, "built anew or compacted"),
    ):
        (work / "store/store.json").write_text(json.dumps(meta | change))
        assert told in user_error(lambda: Store.open(work / "store")), change
