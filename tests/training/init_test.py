"""Training that starts from another model's parameters (`train.init`)."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipeline import output
from data_pipeline.schema import UserError
from drin_jax import Linker, run
from drin_jax.training.session import Session
from drin_jax.workdir import FinishedRun, open_run, read_config
from tests.support import linkers
from tests.support.commands import user_error


@pytest.fixture(scope="module")
def model() -> FinishedRun:
    return open_run(linkers.trained())


@pytest.fixture(scope="module")
def saved(model: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    Linker.from_pretrained(model.workdir).save_pretrained(folder)
    return folder


def config_from(place: object, model: FinishedRun, rate: float = 1e-12) -> ConfigDict:
    """Of an epoch over the model's own mentions that, with this rate, teaches nothing."""
    config = read_config(model.workdir)
    config.data.store, config.data.verify = str(model.store.path), False
    config.train.init = str(place)
    config.train.epochs, config.train.learning_rate = 1, rate
    return config


def execute(config: ConfigDict, workdir: Path) -> None:
    with output.silent():
        run.execute(config, workdir)


def assert_same_scores(workdir: Path, model: FinishedRun) -> None:
    for split in ("valid", "test"):
        np.testing.assert_allclose(open_run(workdir).scores(split), model.scores(split), atol=1e-4)


def test_a_run_begins_where_another_ended(model: FinishedRun, tmp_path: Path) -> None:
    config = config_from(model.workdir, model)
    config.seed += 1
    execute(config, tmp_path / "new")
    assert_same_scores(tmp_path / "new", model)
    config.train.init = ""
    execute(config, tmp_path / "random")
    with pytest.raises(AssertionError):
        assert_same_scores(tmp_path / "random", model)


def test_a_run_begins_with_a_saved_model_and_goes_on_without_it(
    model: FinishedRun, saved: Path, tmp_path: Path
) -> None:
    place = tmp_path / "model"
    shutil.copytree(saved, place)
    config = config_from(place, model)
    execute(config, tmp_path / "new")
    assert_same_scores(tmp_path / "new", model)
    shutil.rmtree(place)
    config.train.epochs = 2
    execute(config, tmp_path / "new")
    assert_same_scores(tmp_path / "new", model)
    config.train.init = ""
    assert "train.init" in user_error(lambda: execute(config, tmp_path / "new"))


def test_it_learns_from_there(model: FinishedRun, saved: Path, tmp_path: Path) -> None:
    execute(config_from(saved, model, rate=1e-3), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["config"]["train.init"] == str(saved)
    with pytest.raises(AssertionError):
        assert_same_scores(tmp_path, model)


def test_parameters_of_another_size_are_told(
    model: FinishedRun, saved: Path, tmp_path: Path
) -> None:
    for name, place in (("a", model.workdir), ("b", saved)):
        config, workdir = config_from(place, model), tmp_path / name
        config.model.width = 8
        told = user_error(functools.partial(execute, config, workdir))
        assert told.startswith(f"train.init: the parameters of {place} do not fit this config")
        assert "wrong shape" in told
    config = config_from(saved, model)
    config.model.name, config.model.nil = "drin", False
    assert "missing: " in user_error(lambda: execute(config, tmp_path / "other"))


def test_a_folder_without_a_model_is_told_before_anything_is_made(
    model: FinishedRun, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", "nowhere", "x" * 5000, "a\0b"):
        config = config_from(place, model)
        told = user_error(functools.partial(execute, config, tmp_path / "new"))
        assert "which is neither the workdir of a finished run" in told
        assert not (tmp_path / "new").exists()


def test_a_damaged_file_is_told(model: FinishedRun, saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved / "model.safetensors", tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    told = user_error(lambda: execute(config_from(tmp_path, model), tmp_path / "new"))
    assert "not a whole file of weights" in told


def test_who_does_not_read_it_says_so(model: FinishedRun) -> None:
    with pytest.raises(UserError, match=r"train\.init is read by drin_jax\.main alone"):
        Session(config_from(model.workdir, model), model.store)
