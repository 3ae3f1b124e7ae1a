"""Runs of several seeds in one program are the single runs, stop on their own, and resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import common
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import run
from drin_jax.evaluation.evaluate import SplitScorer
from drin_jax.experiments import seeds, seeds_program
from drin_jax.experiments.seeds import SeedRun, score_seeds, train_seeds
from drin_jax.experiments.seeds_checkpoint import SeedsCheckpoint
from drin_jax.training import device_tables
from drin_jax.training.setup import set_up
from tests.support.commands import small_store, step_lines

SEEDS = (0, 3)
STEPS = 4  # of an epoch: 50 mentions in batches of 16, the last one padded


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("seeds") / "store"
    sizes = {"train": 50, "valid": 20, "test": 9}
    return Store.open(small_store(path, mentions=sizes, entities=40, r=5))


def tiny_config(store: Store, **train: Any) -> ConfigDict:
    config = common.get_config()
    config.data.store = str(store.path)
    config.model.name, config.model.width = "bert", 8  # compiles in a fraction of DRIN's time
    config.eval.batch = 8
    config.train.update({"batch": 16, "epochs": 5, "learning_rate": 0.01, **train})
    return config


@pytest.fixture(scope="module")
def runs(store: Store) -> list[SeedRun]:
    """Two seeds as one program."""
    return train_seeds(tiny_config(store), store, SEEDS, together=0)


def assert_equal_runs(ours: list[SeedRun], theirs: list[SeedRun], rtol: float = 0.0) -> None:
    assert [one.seed for one in ours] == [one.seed for one in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.best_step, a.epochs, a.failure) == (b.best_step, b.epochs, b.failure)
        np.testing.assert_allclose(a.loss_curve, b.loss_curve, rtol=rtol)
        assert a.valid_curve == b.valid_curve
        pairs = [nnx.traversals.flatten_mapping(one.params) for one in (a, b)]
        assert pairs[0].keys() == pairs[1].keys()
        for name, leaf in pairs[0].items():
            np.testing.assert_allclose(leaf, pairs[1][name], rtol=rtol, atol=rtol)


def test_each_seed_is_the_single_run(store: Store, runs: list[SeedRun], tmp_path: Path) -> None:
    config = tiny_config(store)
    config.seed = SEEDS[1]
    report = run.execute(config, tmp_path / "main")
    ours = runs[1]
    lines = step_lines(tmp_path / "main")
    losses = [line["loss"] for line in lines if "loss" in line]
    np.testing.assert_allclose(ours.loss_curve, np.reshape(losses, (-1, STEPS)).mean(1), rtol=1e-4)
    scores = [line["valid_score"] for line in lines if "valid_score" in line]
    np.testing.assert_allclose(ours.valid_curve, scores, rtol=1e-6)
    assert ours.best_step == report["best_step"]
    assert ours.loss_curve[-1] < ours.loss_curve[0]
    assert ours.loss_curve != runs[0].loss_curve


def test_one_at_a_time_is_the_same(store: Store, runs: list[SeedRun]) -> None:
    assert_equal_runs(train_seeds(tiny_config(store), store, SEEDS, together=1), runs, rtol=1e-3)


def test_scores_are_the_scorers(store: Store, runs: list[SeedRun]) -> None:
    config = tiny_config(store)
    ours = score_seeds(config, store, [one.params for one in runs], "test")
    assert ours.shape == (2, 9, 5)
    setup = set_up(config, store)
    scorer = SplitScorer(setup.graphdef, setup.parallel, batch=8, spec=setup.spec)
    for scores, one in zip(ours, runs, strict=True):
        nnx.replace_by_pure_dict(setup.params, one.params)
        expected = scorer.scores(setup.params, store, "test")
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_interrupted_runs_go_on_bit_for_bit(
    store: Store, runs: list[SeedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, epoch = tiny_config(store), seeds_program.SeedsProgram.epoch
    seen: list[int] = []

    def interrupted(program: Any, states: Any, group: Any, number: int, progress: Any) -> Any:
        seen.append(number)
        if number == 2:
            raise KeyboardInterrupt
        return epoch(program, states, group, number, progress)

    def train() -> list[SeedRun]:
        return train_seeds(config, store, SEEDS, checkpoint=tmp_path, together=0)

    with monkeypatch.context() as patch:
        patch.setattr(seeds_program.SeedsProgram, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
        seen.clear()
        patch.setattr(seeds_program, "FIRST_DISPATCH", 1)  # other dispatches, the same numbers
        patch.setattr(
            seeds_program.SeedsProgram,
            "epoch",
            lambda *args: seen.append(args[3]) or epoch(*args),
        )
        assert_equal_runs(train(), runs)
        assert seen == [2, 3, 4]
        assert_equal_runs(train(), runs)  # all done: nothing is trained
        assert seen == [2, 3, 4]
    config.model.width = 4
    with pytest.raises(UserError, match=r"another config \(model\.width 8 -> 4"):
        train()


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    kept, tree = SeedsCheckpoint(tmp_path, [2]), {"a": np.arange(3.0, dtype=np.float32)}
    assert kept.restore(tree) is None
    kept.save(tree, [{"seed": 2}])
    assert [file.name for file in tmp_path.iterdir()] == ["seeds_2.npz"]
    restored = kept.restore(tree)
    assert restored is not None
    np.testing.assert_array_equal(restored[0]["a"], tree["a"])
    for other in ({"a": np.zeros(4, np.float32)}, {"a": tree["a"], "b": tree["a"]}):
        with pytest.raises(UserError, match="another model"):
            kept.restore(other)
    kept.path.write_bytes(kept.path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"seeds_2\.npz: unreadable checkpoint .* delete it"):
        kept.restore(tree)


def test_patience_is_each_seeds_own(store: Store, runs: list[SeedRun]) -> None:
    """Held against the long runs: stopped after an epoch that was no better, best as then."""
    stopped = train_seeds(tiny_config(store, patience=1), store, SEEDS, together=0)
    for short, long in zip(stopped, runs, strict=True):
        falls = [b <= max(long.valid_curve[:i]) for i, b in enumerate(long.valid_curve) if i]
        ends = falls.index(True) + 2 if True in falls else len(long.valid_curve)
        assert short.epochs == ends
        assert short.valid_curve == long.valid_curve[:ends]
        assert short.best_score == max(short.valid_curve)
    assert stopped[0].epochs != stopped[1].epochs


@pytest.mark.parametrize("together", [0, 1])
def test_a_seed_that_fails_leaves_the_others(
    store: Store, runs: list[SeedRun], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = seeds_program.SeedsProgram.initial

    def with_nan(program: Any, group: Any) -> Any:
        state = initial(program, group)
        if 3 not in group:
            return state
        spoilt = np.where(np.array(group) == 3, np.nan, 0).astype(np.float32)[:, None]
        bias = state.params["entity_text"]["bias"]
        bias[...] = bias[...] + spoilt
        return state

    monkeypatch.setattr(seeds_program.SeedsProgram, "initial", with_nan)
    config = tiny_config(store, epochs=2)
    good, bad = train_seeds(config, store, SEEDS, together=together)
    assert bad.failure is not None
    assert bad.failure.startswith("step 0 is not finite; lower train.learning_rate")
    assert (bad.epochs, bad.best_step, bad.params, bad.valid_curve) == (0, -1, None, [])
    assert good.failure is None
    np.testing.assert_allclose(good.loss_curve, runs[0].loss_curve[:2], rtol=1e-4)


def test_groups_shrink_to_what_fits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    program = seeds_program.SeedsProgram(tiny_config(store), store)
    assert program.fitting(2) == 2
    for free, fits in ((program.bytes(2), 2), (program.bytes(2) - 1, 1)):
        monkeypatch.setattr(device_tables, "free_bytes", lambda free=free: free)
        assert program.fitting(2) == fits
    monkeypatch.setattr(device_tables, "free_bytes", lambda: program.bytes(1) - 1)
    with pytest.raises(UserError, match=r"lower train\.batch or model\.width"):
        program.fitting(2)


def test_what_cannot_be_trained_is_refused(store: Store) -> None:
    for wrong in ([], [1, 1], [-1]):
        with pytest.raises(UserError, match=r"give one or more, from 0 on, each once"):
            train_seeds(tiny_config(store), store, wrong)
    config = tiny_config(store)
    config.loss.form = "odd"
    with pytest.raises(UserError, match=r"loss\.form is 'odd'"):
        train_seeds(config, store, SEEDS)


def test_the_cpu_takes_turns() -> None:
    assert seeds.default_together() == 1
