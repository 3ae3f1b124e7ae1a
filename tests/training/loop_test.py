"""The training step compiles once, and a state that is not finite is frozen where it was good."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipeline.loader import TrainLoader
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training.step import NEVER, create_state, make_train_step
from tests.support.fixtures import tiny_store
from tests.support.random_graphs import split_model
from tests.support.tolerance import assert_close


@pytest.fixture
def parts(tmp_path: Path):
    """A wrapped step, its first state, and a loader whose epochs end in a padded batch."""
    store = tiny_store(tmp_path / "store")  # 13 training mentions
    graphdef, params = split_model(store.sizes["text_width"], store.sizes["image_width"])
    optimizer = optax.adam(1e-3)
    parallel = DataParallel()
    step = parallel.train_step(
        make_train_step(graphdef, optimizer, loss_form="upstream", margin=0.25)
    )
    state = parallel.replicate(create_state(params, optimizer))
    return step, state, TrainLoader(store, batch=4, epochs=3, seed=0), parallel


def test_one_compilation_serves_every_batch(parts) -> None:
    step, state, loader, parallel = parts
    for arrays in loader:
        state, _ = step(state, parallel.shard(arrays))
    assert int(state.step) == 12  # three epochs of four, the last of each padded
    assert step._cache_size() == 1


def test_the_state_freezes_before_the_first_step_that_is_not_finite(parts) -> None:
    step, state, loader, parallel = parts
    batches = list(loader)
    batches[2]["mention_text"][0, 0] = np.nan
    kept = None
    for i, arrays in enumerate(batches[:5]):
        state, metrics = step(state, parallel.shard(arrays))
        params = jax.tree.map(np.asarray, state.params)
        if i == 1:
            kept = params
        assert int(metrics["failed"]) == (NEVER if i < 2 else 2)
    jax.tree.map(np.testing.assert_array_equal, params, kept)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_parameters_are_the_average_of_those_trained(tmp_path: Path) -> None:
    """Worked out again from the parameters of a run that keeps no average."""
    store = tiny_store(tmp_path / "store")
    graphdef, params = split_model(store.sizes["text_width"], store.sizes["image_width"])
    optimizer, parallel = optax.adam(1e-2), DataParallel()
    make = partial(make_train_step, graphdef, optimizer, loss_form="hinge", margin=0.25)
    plain, averaged = (parallel.train_step(make(average=average)) for average in (0.0, 0.5))
    state, other = (
        parallel.replicate(create_state(jax.tree.map(jnp.copy, params), optimizer, averaged=on))
        for on in (False, True)
    )
    mean = jax.tree.map(np.asarray, params)
    for i, arrays in enumerate(TrainLoader(store, batch=4, epochs=2, seed=0)):
        state, _ = plain(state, parallel.shard(arrays))
        other, _ = averaged(other, parallel.shard(arrays))
        kept = min(0.5, (1 + i) / (10 + i))
        mean = jax.tree.map(
            lambda a, b, k=kept: k * a + (1 - k) * np.asarray(b), mean, state.params
        )
        jax.tree.map(assert_close, other.newest, state.params)
    jax.tree.map(assert_close, other.params, mean)


def test_a_step_copies_no_parameter(parts) -> None:
    step, state, loader, parallel = parts
    program = step.lower(state, parallel.shard(next(loader))).compile().as_text()
    kernels = {x.shape for x in jax.tree.leaves(state.params) if x.ndim == 2}
    # A transposed gradient may be laid out anew.
    copies = re.findall(r"= f32\[(\d+),(\d+)\]\S* copy\(%(?!transpose)", program)
    assert "f32[" in program
    assert not kernels & {(int(rows), int(columns)) for rows, columns in copies}
