"""docs/systems.md: its worked example registers and learns, and its table is what is built."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from configs import common
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.config import check
from drin_jax.evaluation.scoring import SplitScorer
from drin_jax.training.session import make_steps
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state
from tests.support.fixtures import tiny_store
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "systems.md"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the document's system now is in the registry."""
    module, line = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    path = tmp_path / "names.py"
    path.write_text(module)
    spec = importlib.util.spec_from_file_location("drin_jax.models.names", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    ((name, system),) = eval(f"{{{line.strip()}}}", vars(loaded)).items()
    monkeypatch.setitem(models.MODELS, name, system)
    return name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return tiny_store(tmp_path / "store", without_gold=0.0)


def test_the_documents_system_trains_like_any_other(names: str, store: Store) -> None:
    config = common.get_config()
    config.model.name, config.model.width = names, 16
    config.loss.form = "hinge"
    config.train.update({"batch": 16, "epochs": 40, "learning_rate": 0.02})
    config.eval.batch = 8
    check(config)
    setup = set_up(config, store)
    assert setup.spec.needs == ("characters",)
    optimizer = optax.adam(config.train.learning_rate)
    steps = make_steps(config, store, setup, optimizer, None)
    state = setup.parallel.replicate(create_state(setup.params, optimizer))
    losses = []
    for step in range(40):
        state, metrics, _ = steps(state, step, 1)
        losses.append(float(metrics["loss"]))
    assert len(losses) == 40
    assert losses[-1] < 0.2 * losses[0], losses
    scorer = SplitScorer(setup, batch=8)
    scores = scorer.scores(state.params, store, "train")
    gold = store.array("train_gold")
    assert np.mean(scores.argmax(1) == gold) > 0.8
    assert jax.tree.leaves(state.params)[0].dtype == np.float32


def test_without_its_line_it_is_unknown(store: Store) -> None:
    config = common.get_config()
    config.model.name = "names"
    with pytest.raises(UserError, match=r"'names'; known are bert, drin, dzmned, ghmfc"):
        set_up(config, store)


def test_the_documents_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` .*\| ([\d,]+) \|$", DOCUMENT.read_text(), re.M)
    documented = {name: int(count.replace(",", "")) for name, count in rows}

    def built(name: str) -> int:
        model = nnx.eval_shape(
            lambda: models.build(name, 768, 2048, width=768, dtype="float32", rngs=nnx.Rngs(0))
        )
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    assert documented == {name: built(name) for name in models.MODELS}
