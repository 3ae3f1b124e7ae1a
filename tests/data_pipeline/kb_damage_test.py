"""A knowledge base that is damaged, cut or another's: refused by name, and never read as right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.arrays import array_file
from data_pipeline.kb import rows
from data_pipeline.kb.change import Change
from data_pipeline.kb.knowledge_base import open_kb
from tests.support import bases
from tests.support.bases import FIRST, LIFE
from tests.support.fixtures import refusal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a knowledge base with features, in three segments: four of six, one replaced, two new."""
    for step in LIFE[:3]:
        step(tmp_path / "kb")
    return tmp_path / "kb"


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        meta = json.loads((path / "kb.json").read_text())
        change(meta)
        (path / "kb.json").write_text(json.dumps(meta))

    return edit


def _segment(**fields: Any) -> Callable[[Path], object]:
    return _json(lambda meta: meta["segments"][0].update(fields))


def _flip(file: str, at: int = -20) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        data = bytearray((path / file).read_bytes())
        data[at] ^= 16
        (path / file).write_bytes(data)

    return flip


def _cut(file: str, by: int = 1) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes((path / file).read_bytes()[:-by])


def _swap(one: str, other: str) -> Callable[[Path], object]:
    return lambda path: shutil.copy(path / one, path / other)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "there is no knowledge base; make one with drin-jax kb build"),
        (lambda p: (p / "kb.json").unlink(), "kb.json: is missing"),
        (_cut("kb.json"), "kb.json: cannot be read"),
        (lambda p: (p / "kb.json").write_bytes(b""), "kb.json: cannot be read"),
        (lambda p: (p / "kb.json").write_bytes(b"\xff\xfe"), "kb.json: cannot be read"),
        (lambda p: (p / "kb.json").write_text("[1]"), "kb.json: cannot be read"),
        (lambda p: (p / "kb.json").write_text("[" * 100_000), "nested too deeply"),
        (_json(lambda m: m.update(form=99)), "is of form 99"),
        (_json(lambda m: m.pop("name")), "'name' is missing or odd"),
        (_json(lambda m: m.update(segments=[])), "its segments are odd"),
        (_json(lambda m: m.update(segments=[3])), "its segments are odd"),
        (_json(lambda m: m["segments"].reverse()), "its segments are odd"),
        (_json(lambda m: m["segments"].append(m["segments"][0])), "its segments are odd"),
        (_json(lambda m: m["segments"].pop(0)), "000002/dead.npy: names rows that are not there"),
        (_json(lambda m: m["segments"][0]["arrays"].pop("entity_text")), "not every segment has"),
        (_json(lambda m: m["segments"][0]["arrays"].pop("dead")), "its segments are odd"),
        (
            _json(lambda m: m["segments"][0]["arrays"].update(mention_text={})),
            "its segments are odd",
        ),
        (_segment(number=7e400), "its segments are odd"),
        (_segment(rows=10**15), "000001/rows.arrow"),
        (_segment(rows=-1), "000001/rows.arrow"),
        (_segment(number=0), "000000/rows.arrow"),
        (_segment(arrays=[]), "its segments are odd"),
        (lambda p: shutil.rmtree(p / "000002"), "000002/rows.arrow"),
        (lambda p: (p / "000001/rows.arrow").unlink(), "000001/rows.arrow: cannot be read"),
        (lambda p: (p / "000001/rows.arrow").write_bytes(b""), "000001/rows.arrow: is cut"),
        (_cut("000003/rows.arrow"), "000003/rows.arrow: is cut, foreign or damaged"),
        (_flip("000001/rows.arrow", 1120), "000001/rows.arrow: is cut, foreign or damaged"),
        (_flip("000001/rows.arrow", 1400), "000001/rows.arrow: is cut, foreign or damaged"),
        (_swap("000001/rows.arrow", "000003/rows.arrow"), "000003/rows.arrow: is cut, foreign"),
        (_cut("000001/entity_text.npy"), "000001/entity_text.npy: is cut"),
        (lambda p: (p / "000003/dead.npy").unlink(), "000003/dead.npy: is missing"),
        (_swap("000001/entity_text.npy", "000003/entity_text.npy"), "holds float32 [6, 3]"),
        (_swap("kb.json", "000003/entity_text.npy"), "000003/entity_text.npy: is no .npy file"),
        (_flip("000001/entity_text.npy", 30), "000001/entity_text.npy: "),
    ],
)
def test_damage_is_refused_by_name(path: Path, damage: Callable[[Path], object], told: str) -> None:
    open_kb(path)
    damage(path)
    line = refusal(lambda: open_kb(path))
    assert told in line
    assert str(path) in line


@pytest.mark.parametrize(
    ("name", "column", "told"),
    [
        ("name", pa.array(["x"] * 5 + [None], pa.large_string()), "lacks name in a row"),
        ("images", pa.array([[None]] * 6, pa.large_list(pa.large_string())), "lacks images"),
        (
            "id",
            pa.LargeStringArray.from_buffers(
                6, pa.py_buffer(np.array([0, 1, 6, 2, 3, 4, 6])), pa.py_buffer(b"abcdef")
            ),
            "is missing, cut or foreign",
        ),
        (
            "description",
            pa.LargeStringArray.from_buffers(
                6, pa.py_buffer(np.arange(7)), pa.py_buffer(b"\xff" * 6)
            ),
            "is missing, cut or foreign",
        ),
    ],
)
def test_rows_that_somebody_else_wrote(path: Path, name: str, column: pa.Array, told: str) -> None:
    """With the checksums that kb.json has of them: no cell may end the process."""
    file = path / "000001" / "rows.arrow"
    table = rows.table(FIRST, "")
    table = table.set_column(table.schema.names.index(name), rows.COLUMNS.field(name), column)
    with file.open("wb") as target, pa.ipc.new_file(target, rows.COLUMNS) as writer:
        writer.write_table(table)
    size, crc = file.stat().st_size, array_file.crc32(file, lambda n: None)
    _json(lambda m: m["segments"][0]["rows_file"].update(bytes=size, crc32=crc))(path)
    assert f"000001/rows.arrow: {told}" in refusal(lambda: open_kb(path))


def test_compaction_makes_no_damage_whole(path: Path) -> None:
    _flip("000001/entity_text.npy", -1)(path)
    assert "damaged since it was written: 000001/entity_text.npy" in refusal(
        lambda: bases.compact(path)
    )
    assert open_kb(path).generation == 3


def test_verify_names_what_is_damaged_inside(path: Path) -> None:
    for file in ("000001/entity_text.npy", "000003/entity_has_text.npy"):
        _flip(file, -1)(path)
    line = refusal(open_kb(path).verify)
    assert "000001/entity_text.npy, 000003/entity_has_text.npy" in line
    assert "dead" not in line
    assert "restore it from a copy" in line


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file: cannot be written" in refusal(lambda: Change(tmp_path / "file"))
    assert "cannot be written" in refusal(lambda: Change(tmp_path / "file" / "kb"))
    assert "there is no knowledge base" in refusal(lambda: open_kb(tmp_path / "file"))
    assert "there is no knowledge base" in refusal(lambda: open_kb(tmp_path / ("x" * 5000)))
    with Change(tmp_path / "kb") as change:
        assert "needs at least one entity" in refusal(lambda: change.build([], name="none"))
