"""Finished runs over a store with raw files, shared by the tests of this room."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import common
from drin_jax import run
from drin_jax.workdir import FinishedRun, open_run
from tests.support import commands
from tests.support.finished_runs import ORANGE, SIZES


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store under `store`, and raw files with the same ids under `raw`."""
    folder = tmp_path_factory.mktemp("explain")
    commands.small_store(folder / "store", mentions=SIZES)
    raw = folder / "raw"
    raw.mkdir()
    picture = np.full((40, 60, 3), ORANGE, np.uint8)
    picture[:3] = 0
    Image.fromarray(picture).save(raw / "orange.png")
    entities = [
        {"id": f"Q{i}", "name": f"Entität {i}", "description": f"thing {i}", "image": "orange.png"}
        for i in range(24)
    ]
    mentions = [
        {"id": f"m{i}", "text": f"see mention {i} and $5", "start": 4, "end": 11 + len(f"{i}") + 1,
         "image": "orange.png", "entity": None, "split": "test"}
        for i in range(sum(SIZES.values()))
    ]  # fmt: skip
    for name, rows in (("entities", entities), ("mentions", mentions)):
        (raw / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="package")
def train(folder: Path) -> Callable[..., Path]:
    """Trains a tiny run over the store and returns its workdir."""

    def trained(name: str, **fields: str) -> Path:
        config = common.get_config()
        config.data.root, config.data.store = str(folder / "raw"), str(folder / "store")
        config.model.width, config.train.epochs, config.train.batch = 8, 1, 16
        config.eval.batch = 16
        config.update_from_flattened_dict(fields)
        run.execute(config, folder / name)
        return folder / name

    return trained


@pytest.fixture(scope="package")
def drin(train: Callable[..., Path]) -> FinishedRun:
    return open_run(train("drin"))


@pytest.fixture(scope="package")
def bert(train: Callable[..., Path]) -> FinishedRun:
    return open_run(train("bert", **{"model.name": "bert"}))
