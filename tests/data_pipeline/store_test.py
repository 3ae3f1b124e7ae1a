import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from tests.support.fixtures import TINY_GROUPS, refusal, tiny_arrays, tiny_store, write_tables


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store"
    tiny_store(path)
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


# ---- what was written is what is read


@pytest.mark.parametrize("v", [0, 6])
def test_reads_back_what_was_written(tmp_path: Path, v: int) -> None:
    arrays, strings = tiny_arrays(v=v, without_text=0.3, separate_edges=True)
    store = tiny_store(tmp_path / "store", v=v, without_text=0.3, separate_edges=True)
    for name, array in arrays.items():
        read = store.array(name)
        assert isinstance(read, np.memmap)
        assert not read.flags.writeable
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    for name, table in strings.items():
        assert list(store.strings(name)) == table
    assert store.sizes == {
        "entities": 24,
        "mentions": 26,
        "r": 4,
        "text_width": 8,
        "image_width": v,
        "object_width": 3 if v else 0,
        "clip_width": 3 if v else 0,
    }
    assert store.splits == {"train": 13, "valid": 6, "test": 7}
    assert (store.name, store.groups) == ("tiny", TINY_GROUPS)
    assert store.report == {"counts": {"mentions": 26}}
    store.verify()


def test_an_edge_table_that_is_not_there_is_the_vertex_table(whole: Path) -> None:
    store = Store.open(whole)
    assert not (whole / "mention_text_edge.npy").exists()
    np.testing.assert_array_equal(store.array("mention_text_edge"), store.array("mention_text"))
    np.testing.assert_array_equal(store.array("mention_text_edge"), store.array("mention_text"))
    assert "nonsense" in refusal(lambda: store.array("nonsense"))


def test_strings_are_a_sequence(whole: Path) -> None:
    names = Store.open(whole).strings("entity_name")
    assert len(names) == 24
    assert (names[0], names[-1]) == ("Entität 0", "Entität 23")
    assert names[1:3] == ["Entität 1", "Entität 2"]
    with pytest.raises(IndexError):
        names[24]


def test_a_finished_store_holds_nothing_but_the_store(whole: Path) -> None:
    files = {file.name for file in whole.iterdir()}
    arrays = schema.TEMPLATES.keys() - schema.OPTIONAL_ARRAYS - schema.ENTITY_ARRAYS.keys()
    assert files == {"kb", "store.json", *(f"{name}.npy" for name in arrays)}
    assert [file.name for file in whole.parent.iterdir()] == ["store"]


# ---- what open and verify refuse


def _edit(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    meta = json.loads((path / "store.json").read_text())
    edit(meta)
    (path / "store.json").write_text(json.dumps(meta))


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-5])


def _lengthen(path: Path) -> None:
    """A file of more bytes than its array has, and a store.json that says so."""
    array = path / "mention_text.npy"
    array.write_bytes(array.read_bytes() + b"x" * 9)
    changed = {"bytes": array.stat().st_size, "crc32": zlib.crc32(array.read_bytes())}
    _edit(path, lambda meta: meta["arrays"]["mention_text"].update(changed))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "store: there is no feature store"),
        (lambda p: (p / "store.json").unlink(), "store.json: is missing"),
        (lambda p: (p / "store.json").write_text('{"schema": 1, '), "store.json: unreadable"),
        (lambda p: (p / "store.json").write_bytes(b"\xff\xfe"), "store.json: unreadable"),
        (lambda p: (p / "store.json").write_text("[1]"), "store.json: unreadable"),
        (lambda p: _edit(p, lambda m: m.update(schema=99)), "schema version 99"),
        (lambda p: _edit(p, lambda m: m.pop("groups")), "'groups' is missing"),
        (lambda p: _edit(p, lambda m: m["arrays"].pop("test_gold")), "lacks the array test_gold"),
        (lambda p: _edit(p, lambda m: m["arrays"].update(test_gold=3)), "'test_gold' is odd"),
        (
            lambda p: _edit(p, lambda m: m["arrays"]["test_gold"].update(shape=[float("inf")])),
            "'test_gold' is odd",
        ),
        (lambda p: (p / "store.json").write_text("[" * 100_000), "(nested too deeply)"),
        (_lengthen, "holds 9 bytes more than its float32 [26, 8] takes"),
        (lambda p: (p / "mention_text.npy").unlink(), "mention_text.npy: is missing"),
        (lambda p: _cut(p / "mention_text.npy"), "mention_text.npy: is cut"),
        (lambda p: (p / "mention_text.npy").write_bytes(b""), "mention_text.npy: is empty"),
        (lambda p: (p / "mention_text.npy").write_bytes(b"PK" * 999), "is no .npy file"),
        (lambda p: (p / "mention_text.npy").write_bytes(b"GIF89a"), "is no .npy file"),
        (
            lambda p: (p / "mention_text.npy").open("ab").write(b"x" * 9),
            "in 969 bytes, but it was written as",
        ),
        (
            lambda p: np.save(p / "mention_text.npy", np.zeros((8, 26), np.float32)),
            "holds float32 [8, 26] in 960 bytes, but it was written as float32 [26, 8] in 960",
        ),
        (lambda p: np.save(p / "mention_text.npy", np.zeros((26, 8), np.int32)), "holds int32"),
        (lambda p: np.save(p / "mention_text.npy", np.zeros((26, 8), ">f4")), "holds >f4"),
        (
            lambda p: np.save(p / "mention_text.npy", np.asfortranarray(np.zeros((26, 8), "f4"))),
            "is in Fortran order",
        ),
    ],
)
def test_open_refuses_by_name(copy: Path, damage: Callable[[Path], Any], told: str) -> None:
    Store.open(copy)
    damage(copy)
    line = refusal(lambda: Store.open(copy))
    assert told in line
    assert str(copy) in line


def test_a_damaged_header_is_refused(copy: Path) -> None:
    file = copy / "train_gold.npy"
    data = bytearray(file.read_bytes())
    data[20:30] = b"\x00" * 10
    file.write_bytes(data)
    assert "train_gold.npy: its header is damaged" in refusal(lambda: Store.open(copy))


def test_verify_names_each_damaged_file(copy: Path) -> None:
    for name in ("mention_image.npy", "mention_id_bytes.npy"):
        data = bytearray((copy / name).read_bytes())
        data[-3] ^= 64
        (copy / name).write_bytes(data)
    store = Store.open(copy)
    line = refusal(store.verify)
    assert "mention_image.npy" in line
    assert "mention_id_bytes.npy" in line
    assert "mention_text.npy" not in line


def test_a_damaged_string_is_named(copy: Path) -> None:
    names = Store.open(copy).strings("mention_surface")
    assert names[0] == "mention 0"
    file = copy / "mention_surface_bytes.npy"
    file.write_bytes(file.read_bytes().replace(b"me", b"\xff\xff", 1))
    assert "string 0 is damaged" in refusal(lambda: Store.open(copy).strings("mention_surface")[0])


def test_other_settings_are_told_apart(tmp_path: Path) -> None:
    arrays, strings = tiny_arrays()
    settings = {"encoders": {"text": "bert", "pool": ["cls"]}, "retrieval.r": np.int64(4)}
    writer = StoreWriter(tmp_path / "store", settings)
    write_tables(writer, arrays, strings)
    writer.finish("tiny", TINY_GROUPS, {"kept": np.float32(0.5)})
    same = {"encoders": {"text": "bert", "pool": ("cls",)}, "retrieval.r": 4}
    assert Store.open(tmp_path / "store", made_from=same).report == {"kept": 0.5}
    other = {"encoders": {"text": "roberta", "pool": ("cls",)}, "retrieval.r": 4, "new": None}
    line = refusal(lambda: Store.open(tmp_path / "store", made_from=other))
    assert 'encoders.text was "bert", is "roberta"' in line
    assert "new was not set, is null" in line
    assert "retrieval.r" not in line
    assert "delete it" in line
    assert "data.store" in line
