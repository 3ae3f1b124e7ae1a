"""Runs of several seeds over one session are the single runs, stop on their own, and resume."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipeline.store.reader import Store
from drin_jax import run
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.experiments import seed_runs
from drin_jax.experiments.seed_runs import Recorder, SeedRun, train_seed
from drin_jax.training import loop
from drin_jax.training.loop import NotFinite, Trainer
from drin_jax.training.metric_log import curves
from drin_jax.training.session import Session
from drin_jax.workdir import open_run
from tests.support.commands import small_store

SEEDS = (0, 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("seeds") / "store"
    sizes = {"train": 50, "valid": 20, "test": 9}  # epochs of 4 steps, the last one padded
    return Store.open(small_store(path, mentions=sizes, entities=40, r=5))


def tiny_config(store: Store, **train: Any) -> ConfigDict:
    config = common.get_config()
    config.data.store = str(store.path)
    config.model.name, config.model.width = "bert", 8  # compiles in a fraction of DRIN's time
    config.eval.batch = 8
    config.train.update({"batch": 16, "epochs": 5, "learning_rate": 0.01, **train})
    return config


@pytest.fixture(scope="module")
def session(store: Store) -> Session:
    return Session(tiny_config(store), store)


@pytest.fixture(scope="module")
def runs(session: Session, tmp_path_factory: pytest.TempPathFactory) -> list[SeedRun]:
    folder = tmp_path_factory.mktemp("runs")
    return [train_seed(session, seed, folder / str(seed), "") for seed in SEEDS]


def test_what_only_training_needs_goes_with_the_session(store: Store) -> None:
    """A scorer that is kept for evaluation keeps no table of the train split."""

    def tables() -> int:
        shape = store.array("train_edges").shape
        return sum(array.shape == shape for array in jax.live_arrays())

    before, session = tables(), Session(tiny_config(store), store)
    assert tables() == before + 1
    scorer, params, scores = session.scorer, session.setup.params, session.scores
    expected = scores(params, "valid")
    del session, scores
    assert tables() == before
    np.testing.assert_array_equal(scorer.scores(params, store, "valid"), expected)


def assert_equal_runs(ours: SeedRun, theirs: SeedRun) -> None:
    assert (ours.seed, ours.best_step, ours.best_score, ours.loss_curve, ours.valid_curve) == (
        *(theirs.seed, theirs.best_step, theirs.best_score),
        *(theirs.loss_curve, theirs.valid_curve),
    )
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_each_seed_is_the_single_run(store: Store, runs: list[SeedRun], tmp_path: Path) -> None:
    config = tiny_config(store)
    config.seed = SEEDS[1]
    report = run.execute(config, tmp_path)
    ours = runs[1]
    assert (ours.loss_curve, ours.valid_curve) == curves(tmp_path)
    assert len(ours.loss_curve) == 5
    assert ours.best_step == report["best_step"]
    assert ours.loss_curve[-1] < ours.loss_curve[0]
    assert ours.loss_curve != runs[0].loss_curve
    jax.tree.map(np.testing.assert_array_equal, ours.params, open_run(tmp_path).params)


def test_the_runs_of_a_session_compile_once(session: Session, runs: list[SeedRun]) -> None:
    assert session._steps.compilations == 1


def test_batches_from_the_store_train_the_same(
    store: Store, runs: list[SeedRun], tmp_path: Path
) -> None:
    config = tiny_config(store)
    config.data.tables = "host"
    session = Session(config, store)
    for one in runs:
        streamed = train_seed(session, one.seed, tmp_path / str(one.seed), "")
        np.testing.assert_allclose(streamed.loss_curve, one.loss_curve, rtol=1e-5)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_an_interrupted_run_goes_on_bit_for_bit(
    session: Session,
    runs: list[SeedRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_seconds: float,
) -> None:
    """Whatever was saved when it ended in the third epoch: every epoch, or nothing at all."""
    monkeypatch.setattr(seed_runs, "SAVE_SECONDS", save_seconds)
    end_epoch = Trainer._end_epoch
    ended: list[int] = []

    def interrupted(trainer: Trainer) -> None:
        if trainer.step == 12:
            raise KeyboardInterrupt
        end_epoch(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_seed(session, SEEDS[1], tmp_path, "")
    monkeypatch.setattr(loop, "FIRST_DISPATCH", 1)  # other dispatches, the same numbers
    monkeypatch.setattr(
        Trainer,
        "_end_epoch",
        lambda trainer: ended.append(trainer.step) or end_epoch(trainer),  # type: ignore[func-returns-value]
    )
    assert_equal_runs(train_seed(session, SEEDS[1], tmp_path, ""), runs[1])
    assert ended == ([12, 16, 20] if save_seconds == 0 else [4, 8, 12, 16, 20])
    if save_seconds == 0:  # all done: nothing is trained
        assert_equal_runs(train_seed(session, SEEDS[1], tmp_path, ""), runs[1])
        assert len(ended) == 3


def test_patience_is_each_seeds_own(store: Store, runs: list[SeedRun], tmp_path: Path) -> None:
    """Held against the long runs: stopped after an epoch that was no better, best as then."""
    session, lengths = Session(tiny_config(store, patience=1), store), []
    for long in runs:
        short = train_seed(session, long.seed, tmp_path / str(long.seed), "")
        falls = [b <= max(long.valid_curve[:i]) for i, b in enumerate(long.valid_curve) if i]
        lengths.append(falls.index(True) + 2 if True in falls else len(long.valid_curve))
        assert short.valid_curve == long.valid_curve[: lengths[-1]]
        assert short.best_score == max(short.valid_curve)
    assert lengths[0] != lengths[1]


def test_a_seed_that_fails_leaves_the_others(
    session: Session, runs: list[SeedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Session.trainer

    def with_nan(session: Session, seed: int, *args: Any, **options: Any) -> Trainer:
        made = trainer(session, seed, *args, **options)
        if seed == SEEDS[1]:
            made.state = jax.tree.map(
                lambda x: x * np.nan if x.dtype == np.float32 else x, made.state
            )
        return made

    monkeypatch.setattr(Session, "trainer", with_nan)
    with pytest.raises(NotFinite, match=r"^step 0 is not finite .* lower train\.learning_rate"):
        train_seed(session, SEEDS[1], tmp_path / "bad", "")
    assert_equal_runs(train_seed(session, SEEDS[0], tmp_path / "good", ""), runs[0])


def test_seeds_together_are_the_mean_of_their_scores(
    session: Session, runs: list[SeedRun], tmp_path: Path
) -> None:
    recorder = Recorder(session, ("test",), "test")
    for one in runs:
        recorder.write(tmp_path / f"seed{one.seed}", one, "a row", {})
    data = [json.loads((tmp_path / f"seed{s}" / "run.json").read_text()) for s in SEEDS]
    assert "together" not in data[0]
    found = data[-1]["together"]["test"]
    assert found["seeds"] == len(SEEDS)
    scores = [np.load(tmp_path / f"seed{s}" / "scores_test.npy") for s in SEEDS]
    view = SplitView.of(session.store, "test", session.setup.spec.r)
    wanted = evaluate_split(view, {"a row": np.mean(scores, 0)}, [1])
    (ours,) = found["subsets"]["all"]["end_to_end"].values()
    (theirs,) = wanted["subsets"]["all"]["end_to_end"].values()
    assert ours["mean"]["hits@1"] == theirs["mean"]["hits@1"]
