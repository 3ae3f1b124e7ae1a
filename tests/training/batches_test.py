"""Steps on tables on the devices are those on batches from the store, however they are cut."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training import device_tables
from drin_jax.training.batches import HostSteps, ResidentSteps
from drin_jax.training.checkpoint import Checkpoints
from drin_jax.training.device_tables import PLACES, DeviceTables, Placement
from drin_jax.training.loop import NotFinite, Trainer
from drin_jax.training.session import make_steps
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state
from tests.support.fixtures import tiny_store
from tests.support.tolerance import TRAINED, assert_close

STEPS = 8  # two epochs, each of which ends in a padded batch


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("dispatch") / "store"
    return tiny_store(path, without_image=0.4, padding=0.4, without_gold=0.3)  # 13 to train on


def config_of(**train: Any) -> Any:
    config = common.get_config()
    config.model.width, config.model.layers = 8, 1
    config.train.update({"batch": 4, "epochs": 2, "learning_rate": 0.01} | train)
    config.eval.batch = 4
    return config


def build(store: Store, kind: str, loss: str = "hinge", **train: Any) -> tuple:
    """Steps with tables in this place and a first state."""
    config = config_of(**train)
    config.loss.form = loss
    setup = set_up(config, store)
    tables = None if kind == "host" else tables_of(store, kind)
    optimizer = optax.adam(config.train.learning_rate)
    steps = make_steps(config, store, setup, optimizer, tables)
    assert isinstance(steps, HostSteps if tables is None else ResidentSteps)
    return steps, setup.parallel.replicate(create_state(setup.params, optimizer))


def trained(steps: Any, state: Any, cuts: tuple[int, ...] = (4,)) -> tuple[Any, list[float]]:
    """The state after STEPS steps in dispatches of these lengths, in turn, and the losses."""
    step, turn, series = 0, 0, []
    while step < STEPS:
        state, metrics, n = steps(state, step, cuts[turn % len(cuts)])
        series += [float(x) for x in np.atleast_1d(metrics["loss"])[:n]]
        step, turn = step + n, turn + 1
    assert int(state.step) == STEPS
    return state, series


def tables_of(store: Store, kind: str) -> DeviceTables:
    return DeviceTables.of(store, "train", placement=Placement(kind, DataParallel()))


def trainer_of(steps: Any, state: Any, workdir: Path, **options: Any) -> Trainer:
    return Trainer(
        state=state,
        steps=steps,
        parallel=DataParallel(),
        workdir=workdir,
        evaluate=lambda params: 0.5,
        describe_step=str,
        train=ConfigDict({"epochs": 2, "patience": 0, "save_every": 1000, "log_every": 2}),
        **options,
    )


def test_every_place_gives_the_same_losses(store: Store) -> None:
    _, expected = trained(*build(store, "host"))
    assert np.ptp(expected) > 0.01
    for kind in ("device", "sharded"):
        _, series = trained(*build(store, kind))
        assert_close(series, expected, limit=TRAINED)
    _, halved = trained(*build(store, "bfloat16"))
    # Features with 8 bits of mantissa instead of 24, through eight steps.
    assert_close(halved, expected, limit=0.05)
    assert halved != expected


def test_cuts_change_no_bit_and_compile_nothing(store: Store) -> None:
    results = []
    steps, state = build(store, "device", log_every=3)
    for cuts in ((4,), (1,), (3, 2)):
        results.append(trained(steps, jax.tree.map(jnp.copy, state), cuts))  # a step donates it
        assert steps.compilations == 1
    (first, losses_), *others = results
    for state, series in others:
        assert series == losses_
        jax.tree.map(np.testing.assert_array_equal, state, first)


def test_within_an_epoch_nothing_crosses_unasked(store: Store) -> None:
    steps, state = build(store, "device")
    state, _, _ = steps(state, 0, 1)  # compiles, uploads the epoch's rows and the number 1
    with jax.transfer_guard("disallow"):
        for step in (1, 2, 3):
            state, _, n = steps(state, step, 1)
            assert n == 1
    with jax.transfer_guard("disallow_explicit"), pytest.raises(Exception, match=r"[Tt]ransfer"):
        steps(state, 4, 1)  # the next epoch's rows: the guard sees what does cross


def test_losses_are_fetched_once_a_dispatch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(*build(store, "device"), tmp_path)
    fetched, dispatched = [], []
    get, start = jax.device_get, ResidentSteps.__call__

    def counted_get(tree: Any) -> Any:
        if isinstance(tree, list):  # of dispatches' metrics; orbax fetches single arrays
            fetched.extend(tree)
        return get(tree)

    def counted_start(steps: Any, state: Any, step: int, most: int) -> Any:
        out = start(steps, state, step, most)
        dispatched.append(out[2])
        return out

    monkeypatch.setattr(jax, "device_get", counted_get)
    monkeypatch.setattr(ResidentSteps, "__call__", counted_start)
    trainer.fit()
    assert dispatched == [2, 2, 2, 2]
    assert len(fetched) == len(dispatched)


def test_the_best_state_outlives_a_later_one_that_is_not_finite(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was not on disk yet, as between the saves of short epochs."""
    call = HostSteps.__call__

    def spoilt(steps: Any, state: Any, step: int, most: int) -> Any:
        if step == 6:
            state = state.replace(params=jax.tree.map(lambda x: x * np.nan, state.params))
        return call(steps, state, step, most)

    monkeypatch.setattr(HostSteps, "__call__", spoilt)
    trainer = trainer_of(*build(store, "host"), tmp_path, save_seconds=1e9)
    with pytest.raises(NotFinite, match=r"step 6 is not finite .* of step 4 is kept"):
        trainer.fit()
    trainer.close()
    assert Checkpoints(tmp_path / "checkpoints").best_step == 4


@pytest.mark.parametrize("form", ["upstream", "paper_batch"])  # each mention against all
def test_parts_of_a_batch_add_up(store: Store, form: str) -> None:
    whole_state, whole = trained(*build(store, "device", form))
    for kind, parts in (("device", 2), ("host", 4)):
        state, series = trained(*build(store, kind, form, accumulate=parts))
        assert_close(series, whole, limit=TRAINED)
    moved = optax.tree.norm(optax.tree.sub(state.params, whole_state.params))
    assert moved < 1e-3 * optax.tree.norm(whole_state.params)


def test_parts_have_to_divide_the_batch(store: Store) -> None:
    with pytest.raises(UserError, match=r"train\.accumulate is 3, .* share of train\.batch is 4;"):
        set_up(config_of(accumulate=3), store)


def chosen(store: Store, kind: str, parallel: Any = None) -> Placement:
    return device_tables.choose(kind, store, parallel or DataParallel(), GraphSpec())


def test_tables_go_where_they_fit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {kind: chosen(store, kind).needed for kind in ("device", "bfloat16", "sharded")}
    assert needed["bfloat16"] < needed["device"] == needed["sharded"]  # one device: no gain

    def with_room_for(bytes_: int) -> None:
        monkeypatch.setattr(device_tables, "free_bytes", lambda: int(bytes_ / 0.8) + 1)

    for kind in ("device", "bfloat16"):
        with_room_for(needed[kind])
        found = chosen(store, "auto")
        assert (found.kind, found.needed) == (kind, needed[kind])
        assert found.describe().startswith(f"tables {PLACES[kind]}: 0.00 GB of")
    with_room_for(needed["bfloat16"] // 2)
    assert chosen(store, "auto").kind == "host"
    assert chosen(store, "auto").kind == "host"
    with pytest.raises(UserError, match=r"^data\.tables is 'sharded': the tables take .* lower"):
        chosen(store, "sharded")


def test_places_that_are_not(store: Store) -> None:
    with pytest.raises(UserError, match=r"known are auto, device, bfloat16, sharded, host$"):
        chosen(store, "gpu")
    pmap = DataParallel("pmap")
    assert chosen(store, "auto", pmap).kind == "host"
    with pytest.raises(UserError, match="'pmap' reads batches from the store"):
        chosen(store, "device", pmap)


def test_rows_are_spread_evenly(store: Store, tmp_path: Path) -> None:
    tables = tables_of(store, "sharded")
    assert tables.mentions == 13
    partitions = tables.partitions().shared
    assert partitions["entity_text"] != partitions["entity_has_text"]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(tables))
    assert (
        DeviceTables.bytes(store, ["train"], placement=Placement("sharded", DataParallel())) == held
    )
