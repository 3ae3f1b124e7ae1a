"""Kills what changes a knowledge base, a process of its own so that it may fork: run by `kb_test`.

python -m tests.support.kb_kills steps FOLDER    prints what happened as JSON
python -m tests.support.kb_kills many KB         adds row after row, and prints each id once it is
                                                 acknowledged
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.text_index import TextIndex, text_index
from data_pipeline.schema import PADDING, Entity, UserError
from tests.support import bases
from tests.support.paths import ROOT
from tests.support.store_kills import die_at, fork

FIRST = [bases.entity(f"Q{i}", f"First {i}", f"word{i}", f"alias {i}") for i in range(5)]
SECOND = [bases.entity(f"R{i}", f"Second {i}") for i in range(3)]
CHANGED = [bases.entity("Q1", "Changed 1"), bases.entity("S1", "New 1")]


def _no_step(path: Path) -> None:
    pass


def _built(path: Path) -> None:
    bases.build(path, FIRST, features=True)


def _grown(path: Path) -> None:
    _built(path)
    bases.add(path, SECOND, features=True)
    bases.remove(path, "Q2", "R0")


# Change -> what was done before, what is done, and the ids that are there then.
CHANGES: dict[str, tuple[Callable[[Path], None], Callable[[Path], object], set[str]]] = {
    "build": (_no_step, _built, {"Q0", "Q1", "Q2", "Q3", "Q4"}),
    "add": (
        _built,
        lambda path: bases.add(path, SECOND, features=True),
        {"Q0", "Q1", "Q2", "Q3", "Q4", "R0", "R1", "R2"},
    ),
    "update": (
        _built,
        lambda path: bases.add(path, CHANGED, features=True, update=True),
        {"Q0", "Q1", "Q2", "Q3", "Q4", "S1"},
    ),
    "remove": (_built, lambda path: bases.remove(path, "Q3", "Q0"), {"Q1", "Q2", "Q4"}),
    "compact": (_grown, bases.compact, {"Q0", "Q1", "Q3", "Q4", "R1", "R2"}),
}


def _said(kb: KnowledgeBase) -> dict[str, Entity]:
    """What is there, whose features and names are right, or an AssertionError."""
    kb.verify()
    content, index = bases.content(kb), TextIndex(kb)
    living = np.flatnonzero(kb.alive)
    table, told = np.asarray(kb.array("entity_text")), np.asarray(kb.array("entity_has_text"))
    assert len(living) == len(content) == kb.entity_count
    for row, one in zip(living.tolist(), kb.entities(living), strict=True):
        np.testing.assert_array_equal(table[row], bases.vector(one))
        assert told[row]
        for name in (one.name, *one.aliases):
            assert row in index.names(name, 1)[0], name
    return content


def steps(folder: Path) -> dict[str, dict[str, int]]:
    """A kill before each single step of each change that touches the disk; then the same change
    again."""
    os.fsync = lambda handle: None  # type: ignore[assignment]
    return {name: _killed_everywhere(name, folder) for name in CHANGES}


def _killed_everywhere(name: str, folder: Path) -> dict[str, int]:
    before, change, wanted = CHANGES[name]
    start, path = folder / f"before {name}", folder / "kb"
    before(start)
    old = _said(open_kb(start)) if start.exists() else {}
    counts = {"killed": 0, "killed when done": 0}
    killed = True
    while killed:
        if start.exists():
            shutil.copytree(start, path)

        def run(step: int = counts["killed"] + 1) -> None:
            die_at(step)
            change(path)

        status = os.waitpid(fork(run), 0)[1]
        killed = os.WIFSIGNALED(status)
        counts["killed"] += killed
        assert killed or os.waitstatus_to_exitcode(status) == 0
        try:
            now = _said(open_kb(path))
        except UserError:  # there is none yet
            assert name == "build"
            assert not (path / "kb.json").exists()
            now = {}
        done = now.keys() == wanted and now != old
        counts["killed when done"] += killed and done
        assert done or now == old, (name, counts, now.keys())
        change(path)
        whole = _said(open_kb(path))
        assert whole.keys() == wanted, (name, counts, whole.keys())
        if not killed:
            reference = open_kb(path).reference()
            change(path)  # once more: nothing changes
            assert open_kb(path).reference() == reference
        assert not done or now == whole
        left = {file.name for file in path.iterdir()}
        named = {segment.folder for segment in open_kb(path).segments}
        assert left == {"kb.json", "lock", "index", *named}, (name, counts, left)
        shutil.rmtree(path)
    return counts


def many(path: str) -> None:
    """Adds for ever, three at a time, as many as the time allows."""
    base = open_kb(path)
    number = base.generation
    while True:
        ids = [f"G{number}-{i}" for i in range(3)]
        bases.add(path, [bases.entity(one, f"name {one}", f"word{number}") for one in ids], True)
        print(*ids, flush=True)
        number += 1


def assert_kept(place: str, pause: float) -> KnowledgeBase:
    """Kills `many` four times, up to so many seconds after it began: what it had acknowledged is
    there and found, and nothing half. What is there then."""
    rng, acknowledged = np.random.default_rng(0), []
    for turn in range(4):
        command = [sys.executable, "-m", "tests.support.kb_kills", "many", place]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = process.stdout.readline()  # it has begun
        time.sleep(rng.uniform(0, pause))
        process.kill()
        told += process.communicate(timeout=100)[0]
        acknowledged += told[: told.rfind("\n") + 1].split()
        kb = open_kb(place)
        kb.verify()
        assert (kb.find(acknowledged) != PADDING).all()
        added = [one for one in kb.ids if one.startswith("G")]
        assert len(added) % 3 == 0, "half a change"
        assert len(acknowledged) <= len(added) <= len(acknowledged) + 3 * (turn + 1)
        index, rows = text_index(kb), kb.find(added)
        vectors = np.stack([bases.vector(one) for one in kb.entities(rows)])
        np.testing.assert_array_equal(kb.array("entity_text")[rows], vectors)
        for one, row in zip(added, rows.tolist(), strict=True):
            assert row in index.names(f"name {one}", 1)[0]
    assert len(acknowledged) >= 12
    return kb


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        print(json.dumps(steps(Path(sys.argv[2]))))
    else:
        many(sys.argv[2])
