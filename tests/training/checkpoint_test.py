"""Which states a run's checkpoints keep, whatever is saved, dropped or looked at."""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.schema import UserError
from drin_jax.training.checkpoint import Checkpoints, Position


@flax.struct.dataclass
class State:
    step: Any
    params: Any


def state(step: int) -> State:
    return State(jnp.int32(step), {"weights": jnp.full((3,), float(step))})


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def save(checkpoints: Checkpoints, *saves: tuple[int, float | None]) -> None:
    for step, score in saves:
        checkpoints.save(step, state(step), Position({"step": step}), score)
    checkpoints.wait()


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.last_step, checkpoints.best_step) == (None, None)
    save(checkpoints, (1, None), (2, 0.1), (3, None), (4, 0.3), (5, 0.4), (6, None), (7, None))
    assert steps(tmp_path) == [4, 5, 6, 7]  # without a score a state is never the best
    save(checkpoints, (8, None))
    assert steps(tmp_path) == [4, 5, 7, 8]
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert (again.last_step, again.best_step) == (8, 5)
    step, found, position = again.restore(state(0))
    assert (step, int(found.step), position) == (8, 8, Position({"step": 8}))
    jax.tree.map(np.testing.assert_array_equal, found, state(8))
    step, params = again.restore_best(state(0).params)
    assert step == 5
    np.testing.assert_array_equal(params["weights"], 5.0)
    save(again, (9, 0.5))
    assert steps(tmp_path) == [5, 8, 9]
    again.close()


def test_a_spoilt_state_leaves_the_best_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, (1, 0.1), (2, None), (3, None), (4, 0.2))  # which the next step finds spoilt
    checkpoints.drop_from(4)
    assert (checkpoints.last_step, checkpoints.best_step) == (3, 1)
    assert steps(tmp_path) == [1, 3]
    checkpoints.close()


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, (1, 0.1))
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"  # what a trainer is writing
    (unfinished / "params").mkdir(parents=True)
    look = Checkpoints(tmp_path, read_only=True)
    assert look.restore_best(state(0).params)[0] == 1
    save(look, (3, 0.3))
    look.drop_from(0)
    look.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", unfinished.name]
    checkpoints.close()
    again = Checkpoints(tmp_path)
    save(again, (3, None))
    again.close()
    assert steps(tmp_path) == [1, 3]  # a trainer cleans up
    with pytest.raises(UserError, match=r"none: no checkpoint; train again"):
        Checkpoints(tmp_path / "none", read_only=True).restore_best(state(0).params)
    assert not (tmp_path / "none").exists()


def test_an_older_versions_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match=r"older version .*; train again in another --workdir$"):
        Checkpoints(tmp_path)
