import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.loader import EvalLoader, GraphTables, TrainLoader
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store
from tests.support.fixtures import tiny_store

Batches = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """13 training mentions, 4 candidates."""
    return tiny_store(tmp_path_factory.mktemp("store") / "store", without_text=0.2, padding=0.3)


def make(store: Store, **options: Any) -> TrainLoader:
    return TrainLoader(store, **{"batch": 4, "epochs": 3, "seed": 7} | options)


def saved(loader: TrainLoader) -> dict[str, Any]:
    """Its position, as a checkpoint keeps it."""
    return json.loads(json.dumps(loader.order.position(loader.step)))


def restore(loader: TrainLoader, position: dict[str, Any]) -> None:
    loader.go_to(loader.order.step_at(position))


def assert_same(left: Batches, right: Batches) -> None:
    """Equal to the bit."""
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("v", [0, 6])
@pytest.mark.parametrize(("r", "gold_slot"), [(0, False), (3, False), (0, True), (2, True)])
def test_batches_have_the_schemas_shapes(tmp_path: Path, v: int, r: int, gold_slot: bool) -> None:
    store = tiny_store(tmp_path / "store", v=v)
    slots = (r or 4) + gold_slot
    expected = schema.batch_shapes(4, slots, 8, v)
    for batch in make(store, epochs=1, spec=GraphSpec(r, gold_slot)):
        assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == expected
        assert all(a.flags.c_contiguous and a.flags.writeable for a in batch.values())
        assert all(type(a) is np.ndarray for a in batch.values())


# ---- the order


def test_the_order_is_the_documented_one(store: Store) -> None:
    loader = make(store)
    assert (loader.steps_per_epoch, loader.total_steps) == (4, 12)
    batches = list(loader)
    assert len(batches) == 12
    tables = GraphTables(store, "train")
    for epoch in range(3):
        order = np.random.default_rng([7, epoch]).permutation(13)
        for within in range(4):
            step = 4 * epoch + within
            rows = order[4 * within : 4 * within + 4]
            np.testing.assert_array_equal(loader.order.rows(step), rows)
            padded = np.concatenate([rows, np.full(4 - len(rows), -1)])
            assert_same([batches[step]], [tables.batch(padded)])
            assert batches[step]["mask"].sum() == len(rows)
        visited = np.concatenate([loader.order.rows(4 * epoch + i) for i in range(4)])
        assert sorted(visited) == list(range(13))


def test_seeds_and_epochs_differ(store: Store) -> None:
    loader, other = make(store), make(store, seed=8)
    assert loader.order.rows(0).tolist() != loader.order.rows(4).tolist()
    assert loader.order.rows(0).tolist() != other.order.rows(0).tolist()


def test_max_mentions_is_a_prefix_of_the_first_epoch(store: Store) -> None:
    loader = make(store, max_mentions=6)
    assert loader.steps_per_epoch == 2
    order = np.random.default_rng([7, 0]).permutation(13)
    epochs = [
        np.concatenate([loader.order.rows(2 * e), loader.order.rows(2 * e + 1)]) for e in range(3)
    ]
    assert epochs[0].tolist() == order[:6].tolist()
    for e, rows in enumerate(epochs):
        in_order = [i for i in np.random.default_rng([7, e]).permutation(13) if i in order[:6]]
        assert rows.tolist() == in_order
    assert [int(b["mask"].sum()) for b in loader] == [4, 2] * 3
    assert make(store, max_mentions=99).steps_per_epoch == 4


def test_processes_share_what_one_process_gets(store: Store) -> None:
    whole = list(make(store))
    for count in (2, 4):
        parts = [list(make(store, process=(i, count), threads=i)) for i in range(count)]
        joined = [
            {name: np.concatenate([part[name] for part in step]) for name in step[0]}
            for step in zip(*parts, strict=True)
        ]
        assert_same(joined, whole)


def test_reading_ahead_changes_nothing(store: Store) -> None:
    plain = list(make(store, threads=0))
    for threads in (1, 2, 8):
        assert_same(list(make(store, threads=threads)), plain)


def test_batches_do_not_share_memory(store: Store) -> None:
    loader = make(store)
    first = next(loader)
    before = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        array[...] = 1
    again = make(store)
    assert_same([next(again)], [before])


# ---- resuming


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5, 11, 12])
@pytest.mark.parametrize(("threads", "then"), [(0, 0), (2, 0), (0, 3), (2, 2)])
def test_resume_is_exact(store: Store, stop: int, threads: int, then: int) -> None:
    whole = list(make(store))
    first = make(store, threads=threads)
    seen = [next(first) for _ in range(stop)]
    state = saved(first)
    assert state["step"] == stop
    second = make(store, threads=then)
    restore(second, state)
    assert_same(seen + list(second), whole)


def test_a_loader_can_go_back(store: Store) -> None:
    loader = make(store)
    start = saved(loader)
    first = [next(loader) for _ in range(5)]
    restore(loader, start)
    assert_same([next(loader) for _ in range(5)], first)


def test_resume_with_another_number_of_processes(store: Store) -> None:
    whole = list(make(store))
    first = make(store, process=(1, 4))
    for _ in range(6):
        next(first)
    second = make(store)
    restore(second, saved(first))
    assert_same(list(second), whole[6:])


def test_a_position_past_the_end_leaves_nothing(store: Store) -> None:
    longer, shorter = make(store), make(store, epochs=1)
    for _ in range(9):
        next(longer)
    restore(shorter, saved(longer))
    assert list(shorter) == []


@pytest.mark.parametrize("change", [{"seed": 8}, {"batch": 5}, {"max_mentions": 9}])
def test_a_position_in_another_order_is_refused(store: Store, change: dict[str, int]) -> None:
    state = saved(make(store))
    with pytest.raises(UserError, match=next(iter(change)).removeprefix("max_")):
        restore(make(store, **change), state)


def test_a_position_of_another_store_is_refused(store: Store, tmp_path: Path) -> None:
    other = tiny_store(tmp_path / "store", mentions={"train": 14})
    with pytest.raises(UserError, match="split_size = 13, this run 14"):
        restore(make(other), saved(make(store)))


@pytest.mark.parametrize("step", [None, -1, "3"])
def test_an_odd_position_is_refused(store: Store, step: Any) -> None:
    loader = make(store)
    with pytest.raises(UserError, match="step"):
        restore(loader, saved(loader) | {"step": step})


# ---- evaluation


@pytest.mark.parametrize("threads", [0, 2])
def test_evaluation_visits_each_mention_once_in_file_order(store: Store, threads: int) -> None:
    loader = EvalLoader(store, "test", 3, threads=threads)
    tables = GraphTables(store, "test")
    for _ in range(2):  # a second pass is the same
        steps = list(loader)
        assert len(steps) == len(loader) == 3
        assert [rows.tolist() for rows, _ in steps] == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
        assert steps[0][0].dtype == np.int64
        assert [batch["mask"].tolist() for _, batch in steps] == [
            [True] * 3,
            [True] * 3,
            [True, False, False],
        ]
        for rows, batch in steps:
            assert_same([batch], [tables.batch(rows)])


def test_evaluation_is_shared_too(store: Store) -> None:
    spec = GraphSpec(r=2, gold_slot=True)
    whole = list(EvalLoader(store, "test", 4, spec=spec))
    parts = [list(EvalLoader(store, "test", 4, spec=spec, process=(i, 2))) for i in range(2)]
    for (rows, batch), *shares in zip(whole, *parts, strict=True):
        assert np.concatenate([share[0] for share in shares]).tolist() == rows.tolist()
        joined = {k: np.concatenate([share[1][k] for share in shares]) for k in batch}
        assert_same([joined], [batch])


# ---- refusals


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": 0}, "train.batch is 0"),
        ({"batch": 6, "process": (0, 4)}, "does not divide over 4 processes"),
        ({"process": (2, 2)}, "process 2 of 2"),
        ({"epochs": 0}, "train.epochs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"max_mentions": -1}, "train.max_mentions is -1"),
        ({"spec": GraphSpec(5)}, "graph.r is 5"),
        ({"spec": GraphSpec(-1)}, "graph.r is -1"),
        ({"split": "dev"}, "split is 'dev'"),
    ],
)
def test_a_training_loader_refuses(store: Store, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(store, **options)


def test_an_evaluation_loader_refuses(store: Store) -> None:
    with pytest.raises(UserError, match=r"eval\.batch is 0"):
        EvalLoader(store, "test", 0)
    with pytest.raises(UserError, match=r"eval\.batch is 5, which does not divide"):
        EvalLoader(store, "test", 5, process=(0, 2))


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", mentions={"train": 3})
    with pytest.raises(UserError, match="the valid split is empty"):
        EvalLoader(store, "valid", 2)
