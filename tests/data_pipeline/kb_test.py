"""A knowledge base and its changes: nothing acknowledged is lost, nothing half is ever seen."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import files
from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.text_index import TextIndex
from data_pipeline.schema import PADDING, Entity, UserError
from tests.support import bases
from tests.support.bases import FIRST, LIFE, MORE, assert_features, entity
from tests.support.fixtures import refusal
from tests.support.full_disk import full_beyond
from tests.support.kb_kills import assert_kept
from tests.support.paths import ROOT

SECOND = MORE[1:]


def names(kb: KnowledgeBase) -> dict[str, str]:
    return {id: one.name for id, one in bases.content(kb).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a knowledge base with features, in three segments: four of six, one replaced, two new."""
    for step in LIFE[:3]:
        step(tmp_path / "kb")
    return tmp_path / "kb"


NOW = {"Q0": "First 0", "Q3": "First 3", "Q5": "First 5", "Q2": "Replaced"}
NOW |= {"R/0": "Second", "R 1": SECOND[1].name}


# ---- what is in it


def test_it_is_a_sequence_of_its_rows(path: Path) -> None:
    kb = open_kb(path)
    assert (kb.generation, len(kb), kb.entity_count) == (3, 9, 6)
    assert names(kb) == NOW
    assert kb.ids == [*(f"Q{i}" for i in range(6)), "Q2", "R/0", "R 1"]
    assert kb.alive.tolist() == [True, False, False, True, False, True, True, True, True]
    assert kb.find(["R 1", "Q2", "Q1", "none", "Q5", "\ud800"]).tolist() == [
        *(8, 6, PADDING, PADDING, 5, PADDING)
    ]
    assert kb[3] == FIRST[3]
    assert kb[-1] == SECOND[1]
    assert kb[4:7] == [FIRST[4], FIRST[5], entity("Q2", "Replaced")]
    assert kb.entities(np.array([7, 0, 7])) == [SECOND[0], FIRST[0], SECOND[0]]
    assert list(kb)[:6] == FIRST
    with pytest.raises(IndexError):
        kb[9]
    with pytest.raises(IndexError):
        kb.array("entity_text")[9]
    assert_features(kb)
    kb.verify()
    assert "has no entity_clip_text; it was built without this encoder" in refusal(
        lambda: kb.array("entity_clip_text")
    )


def test_rows_keep_what_they_are(tmp_path: Path) -> None:
    """Long, odd and empty; pictures below the root are found where it has moved."""
    whole = Entity(
        *("id/1", "N\u0000\n🌌" * 2000, "d" * 100_000, str(tmp_path / "root/p/a.png")),
        *(("x", "x", ""), "human", -1e300, (str(tmp_path / "elsewhere.png"),)),
    )
    rows = [whole, entity("e", "")]
    with Change(tmp_path / "kb") as change:
        kb = change.build(rows, name="odd", root=str(tmp_path / "root"))
    assert list(kb) == rows
    meta = json.loads((tmp_path / "kb/kb.json").read_text())
    meta["root"] = "/moved"
    (tmp_path / "kb/kb.json").write_text(json.dumps(meta))
    assert (open_kb(tmp_path / "kb")[0].image) == "/moved/p/a.png"
    assert open_kb(tmp_path / "kb")[0].more_images == whole.more_images


# ---- changes


def test_a_change_writes_nothing_old_again(path: Path) -> None:
    def old() -> dict[Path, tuple[bytes, int]]:
        folders = [path / name for name in ("000001", "000002", "000003")]
        files = [file for folder in folders for file in folder.iterdir()]
        return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = old()
    assert len(before) == 4 + 2 + 4  # rows, dead and two tables; no features of no rows
    bases.add(path, [entity("new")], features=True)
    bases.add(path, [entity("Q0", "again")], features=True, update=True)
    kb = bases.remove(path, "new")
    assert old() == before
    assert names(kb) == NOW | {"Q0": "again"}
    assert kb.generation == 6
    assert_features(kb)


def test_compaction_is_the_same_without_what_was_removed(path: Path) -> None:
    before, kb = open_kb(path), bases.compact(path)
    assert names(kb) == NOW
    assert (len(kb), kb.generation, len(kb.segments)) == (6, 4, 1)
    assert_features(kb)
    kb.verify()
    assert {file.name for file in path.iterdir()} == {"kb.json", "lock", "index", "000004"}
    assert names(before) == NOW  # who has it open keeps what was deleted
    assert_features(before)
    assert bases.compact(path).generation == 4  # nothing to do
    assert names(bases.add(path, [entity("Q1", "back")], features=True)) == NOW | {"Q1": "back"}


def test_who_has_it_open_keeps_the_generation(path: Path) -> None:
    """While others add, replace, remove and compact; and opened so again until it is compacted."""
    opened = open_kb(path)
    index, reference = TextIndex(opened), opened.reference()
    rows, wanted = list(opened), opened.alive.tolist()
    for change in (
        lambda: bases.add(path, [entity("more", "Second")], features=True),
        lambda: bases.add(path, [entity("Q0", "Other")], features=True, update=True),
        lambda: bases.remove(path, "Q3"),
    ):
        change()
        again = open_kb(path, at=reference)
        assert again.reference() == reference
        for kb in (opened, again):
            assert list(kb) == rows
            assert kb.alive.tolist() == wanted
            assert_features(kb)
        for some in (index, TextIndex(again)):
            assert some.names("Second", 5)[0].tolist() == [7]
            assert 3 in some.names("First 3", 5)[0]
            assert not some.knows("other")
    bases.compact(path)
    assert list(opened) == rows
    assert_features(opened)
    assert index.names("Second", 5)[0].tolist() == [7]
    line = refusal(lambda: open_kb(path, at=reference))
    assert "is not the knowledge base of generation 3" in line
    assert "compacted" in line
    other = bases.build(path.with_name("other"), FIRST)
    assert "built anew or compacted" in refusal(lambda: open_kb(other.path, at=reference))


def _bytes(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.add([entity("Q9"), entity("Q5")]), "has 'Q5' already; nothing was added"),
        (lambda c: c.add([FIRST[i] for i in (0, 3)]), "has 'Q0', 'Q3' already"),
        (lambda c: c.add([entity("a"), entity("a")], update=True), "'a' is given twice"),
        (lambda c: c.remove(["Q0", "Q1"]), "has no 'Q1'; nothing was removed"),
        (lambda c: c.remove(["none"]), "has no 'none'"),
        (lambda c: c.remove(["Q0", "Q0"]), "'Q0' is given twice"),
        (lambda c: c.remove(["\ud800"]), "nothing was removed"),
        (lambda c: c.remove(list(NOW)), "nothing would be left"),
        (lambda c: c.build(FIRST, name="base"), "holds a knowledge base already"),
        (lambda c: c.add([entity("Q9")]), "adding to it takes its encoders"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(
    path: Path, change: Callable[[Change], Any], told: str
) -> None:
    before = _bytes(path)
    with Change(path) as open_change:
        assert told in refusal(lambda: change(open_change))
    lock = path / "lock"
    assert {**_bytes(path), lock: b""} == {**before, lock: b""}


def test_features_that_do_not_fit_are_refused(path: Path) -> None:
    def wide(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_has_text", np.ones(len(some), bool))
        segment.write("entity_text", np.ones((len(some), 9), np.float32))
        return {}

    def short(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_text", np.ones((len(some) + 1, 3), np.float32))
        return {}

    def infinite(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_has_text", np.ones(len(some), bool))
        segment.write("entity_text", np.full((len(some), 3), np.nan, np.float32))
        return {}

    def fewer(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_has_text", np.ones(len(some), bool))
        return {}

    def unknown(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("mention_text", np.ones((len(some), 3), np.float32))
        return {}

    for fill, told in (
        (short, "must be float32 [E t] of 1"),
        (infinite, "not finite"),
        (wide, "entity_text [9], but the knowledge base has"),
        (fewer, "has entity_has_text [], but the knowledge base has entity_has_text [], entity_te"),
        (unknown, "must be no table of a knowledge base"),
    ):
        with Change(path, fill) as change:
            assert told in refusal(lambda change=change, id=told: change.add([entity(id)]))
        assert names(open_kb(path)) == NOW
    assert names(bases.add(path, [entity("x")], features=True)) == NOW | {"x": "Name of x"}


def test_one_changes_it_at_a_time(path: Path) -> None:
    with Change(path):
        line = refusal(lambda: Change(path))
        assert "in use by process" in line
        assert names(open_kb(path)) == NOW  # who reads is not kept out
    bases.remove(path, "Q0")


def test_leftovers_of_other_pictures_are_not_taken(tmp_path: Path) -> None:
    """A change that was killed had encoded another picture of the same row."""
    path = tmp_path / "kb"
    bases.build(path, FIRST, features=True)
    wrong, right = (Entity("n", "new", "", image=f"/{name}.png") for name in ("wrong", "right"))

    def killed(segment: Any, some: Any) -> dict[str, Any]:
        bases.filled(segment, some)
        raise KeyboardInterrupt

    with Change(path, killed) as change, pytest.raises(KeyboardInterrupt):
        change.add([wrong])
    assert (path / "000002.partial").exists()
    kb = bases.add(path, [right], features=True)
    assert_features(kb)
    assert kb[-1] == right


def test_a_picture_that_changed_behind_its_path_is_read_again(tmp_path: Path) -> None:
    picture, one = tmp_path / "one.png", Entity("n", "new", "", image=str(tmp_path / "one.png"))
    picture.write_bytes(b"first")
    path = tmp_path / "kb"
    bases.build(path, FIRST, features=True)
    assert bases.add(path, [one], features=True).generation == 2
    assert bases.add(path, [one], features=True, update=True).generation == 2
    since = (path / "000002" / "rows.arrow").stat().st_ctime
    while picture.stat().st_ctime <= since:  # however coarse the clock of the disk
        picture.write_bytes(b"second")
    assert bases.add(path, [one], features=True, update=True).generation == 3
    assert bases.add(path, [one], features=True, update=True).generation == 3


# ---- kills and full disks


def test_a_kill_at_any_step_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.kb_kills", "steps", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts.keys() == {"build", "add", "update", "remove", "compact"}
    for count in counts.values():
        assert count["killed"] > 15, counts
    assert sum(count["killed when done"] for count in counts.values()) > 4, counts


def test_after_a_copy_that_was_killed_another_goes_there(tmp_path: Path) -> None:
    bases.build(tmp_path / "large", [bases.entity("Q1"), bases.entity("Q2")], True)
    bases.add(tmp_path / "large", [bases.entity("Q3")], True)
    bases.build(tmp_path / "small", [bases.entity("Q4")], True)

    def written(path: Path, what: Any) -> None:
        if what:  # kb.json, which is the last
            raise KeyboardInterrupt
        files.write_json(path, what)

    def copy(name: str) -> None:
        with Change(tmp_path / "to") as to:
            to.copy(open_kb(tmp_path / name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_pipeline.kb.change.write_json", written)
        with pytest.raises(KeyboardInterrupt):
            copy("large")
    assert (tmp_path / "to/000002").exists()
    copy("small")
    kb = bases.add(tmp_path / "to", [bases.entity("Q5")], True)
    assert {*bases.content(kb)} == {"Q4", "Q5"}
    kb.verify()


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    bases.build(tmp_path / "kb", FIRST, features=True)
    assert_kept(str(tmp_path / "kb"), 0.4)


def test_what_a_change_could_not_delete_goes_with_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a segment's writer, and what was folded into one; a failed sync names the folder."""

    def full(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), path.stat()):
            raise OSError(28, "No space left on device")

    old = {
        name: shutil.copytree(path / name, path / f"kept {name}") for name in ("000001", "000003")
    }
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert f"{path}: cannot be written (No space" in refusal(lambda: bases.compact(path))
    assert (path / "000001").exists()
    assert names(open_kb(path)) == NOW
    kb = bases.compact(path)
    for name, copy in old.items():
        copy.rename(path / name)
    for name in ("lock", "made_from.json"):
        (path / "000004" / name).touch()
    assert names(bases.remove(path, "Q0")) == {k: v for k, v in NOW.items() if k != "Q0"}
    assert {file.name for file in path.iterdir()} == {
        "kb.json",
        "lock",
        "index",
        *("000004", "000005"),
    }
    assert not {file.name for file in (path / "000004").iterdir()} & {"lock", "made_from.json"}
    assert kb.generation == 4


def test_a_full_disk_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever file it is that does not fit: one line, or an index in memory, and then it works."""
    start = tmp_path / "start"
    refused: list[str] = []
    bases.build(start, FIRST, features=True)
    letters = np.random.default_rng(0).choice([*"abcdefghijklmnopqrstuvwxyz "], (8, 190))
    more = [entity(f"N{i}", f"New {i} {''.join(row)}") for i, row in enumerate(letters)]
    wanted = names(open_kb(start))
    for size in (10, 100, 300, 600, 900, 1200, 1500, 2000, 3000, 4000, 5000, 6000):
        path, tried = shutil.copytree(start, tmp_path / f"kb{size}"), len(refused)
        try:
            with full_beyond(size):
                bases.add(path, more, features=True)
        except UserError as error:
            refused.append(str(error))
        if len(refused) > tried:
            assert names(open_kb(path)) == wanted
        kb = bases.add(path, more, features=True)
        assert names(kb) == wanted | {one.id: one.name for one in more}
        assert [kb.ids[row] for row in TextIndex(kb).names(more[3].name, 1)[0]] == ["N3"]
        assert_features(kb)
        kb.verify()
    assert 4 < len(refused) < 11
    assert all("cannot be written (File too large)" in line for line in refused), refused
    assert "the index is made in memory" in capsys.readouterr().err
