"""Batches looked up on the device are the host's, bit for bit; tables that do not fit say so."""

import mmap
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.loader import GraphTables
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training import device_tables
from drin_jax.training.device_tables import DeviceTables
from tests.support.fixtures import tiny_store

ALL_NEEDS = GraphSpec(needs=schema.NEEDS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Padding, golds that are lost, and vertices without text or picture."""
    path = tmp_path_factory.mktemp("resident") / "store"
    lacking = {"without_text": 0.3, "without_image": 0.4, "padding": 0.4, "without_gold": 0.5}
    return tiny_store(path, **lacking, tokens=True, regions=True, evidence=True)


def batch_of(tables: DeviceTables, rows: np.ndarray) -> dict[str, jax.Array]:
    return jax.jit(lambda tables, rows: tables.batch(rows))(tables, rows.astype(np.int32))


@pytest.mark.parametrize(
    "spec",
    [
        GraphSpec(),
        GraphSpec(2, False, ("regions",)),
        GraphSpec(0, True, ("tokens", "characters")),
        GraphSpec(2, True, schema.NEEDS),
    ],
)
def test_batches_are_the_loaders(store: Store, spec: GraphSpec) -> None:
    train = DeviceTables.of(store, "train", spec)
    for split, rows in (("train", [*range(13), -1]), ("test", [*range(7), -1])):
        tables = DeviceTables.of(store, split, spec, like=train)
        loader = GraphTables(store, split, spec)
        host, device = loader.batch(np.array(rows)), batch_of(tables, np.array(rows))
        assert device.keys() == host.keys()
        for name, expected in host.items():
            assert device[name].dtype == expected.dtype, name
            np.testing.assert_array_equal(device[name], expected, err_msg=name)
        for name in ("has_text", "has_image"):  # there is something to get wrong
            there = np.asarray(device[f"entity_{name}"])
            assert there.any()
            assert not there.all()


def test_tables_of_all_candidates_are_read_as_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not through their maps, whose pages count to the process."""
    seen = []
    monkeypatch.setattr(device_tables, "copy_rows", lambda array, *_: seen.append(array))
    DeviceTables.of(store, "train")
    assert len(seen) > 10
    assert all(isinstance(array.base, mmap.mmap) for array in seen)


def test_a_store_without_pictures(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", v=0)
    rows = np.arange(4)
    device = batch_of(DeviceTables.of(store, "valid"), rows)
    for name, expected in GraphTables(store, "valid").batch(rows).items():
        np.testing.assert_array_equal(device[name], expected, err_msg=name)


def test_splits_share_entities_and_mentions(store: Store) -> None:
    train = DeviceTables.of(store, "train", ALL_NEEDS)
    valid = DeviceTables.of(store, "valid", ALL_NEEDS, like=train)
    assert valid.shared is train.shared
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((train, valid.split)))
    assert DeviceTables.bytes(store, ["train", "valid"], ALL_NEEDS) == held
    two = GraphSpec(r=2, gold_slot=True)
    cut = DeviceTables.of(store, "train", two, like=train)
    needed = DeviceTables.bytes(store, ["train"], two) - DeviceTables.bytes(store, [], two)
    assert needed == sum(leaf.nbytes for leaf in cut.split.values())


def test_tables_that_do_not_fit_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_tables.free_bytes() > 1 << 20
    parallel = DataParallel()
    needed = device_tables.choose("device", store, parallel, GraphSpec()).needed
    monkeypatch.setattr(device_tables, "free_bytes", lambda: needed)
    with pytest.raises(UserError, match=r"tables take .* GB free.*; use data\.tables=") as caught:
        device_tables.choose("device", store, parallel, GraphSpec())
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(device_tables, "free_bytes", lambda: 2 * needed)
    assert device_tables.choose("device", store, parallel, GraphSpec()).kind == "device"


def test_unknown_splits_and_too_many_candidates_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="split is 'dev'"):
        DeviceTables.of(store, "dev")
    with pytest.raises(UserError, match="needs is 'glosses'"):
        DeviceTables.of(store, "train", GraphSpec(needs=("glosses",)))
    with pytest.raises(UserError, match=r"graph\.r is 5, but .* holds 4"):
        DeviceTables.of(store, "train", GraphSpec(r=5))
