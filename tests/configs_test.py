"""Every config builds, is locked, and describes a model that can be built at its full size."""

import importlib
from pathlib import Path

import jax
import pytest
from flax import nnx

from configs import common
from drin_jax import models, run
from drin_jax.command import flat

NAMES = sorted(path.stem for path in Path(common.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_config_is_locked_complete_and_a_card(name: str) -> None:
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    assert set(flat(config)) == set(flat(common.get_config()))
    with pytest.raises(AttributeError):
        config.train.epoch = 3
    run.check(config)
    if name != "common":
        assert f"--config=configs/{name}.py" in module.__doc__


def parameters(name: str, text_width: int, image_width: int) -> int:
    config = importlib.import_module(f"configs.{name}").get_config()

    def build() -> nnx.State:
        fields = dict(config.model)
        model = models.build(
            fields.pop("name"),
            text_width,
            image_width,
            relations=tuple(config.graph.relations),
            dynamic=config.graph.edges == "dynamic",
            adjacency=config.graph.adjacency,
            rngs=nnx.Rngs(0),
            **fields,
        )
        return nnx.state(model, nnx.Param)

    return sum(leaf.size for leaf in jax.tree.leaves(nnx.eval_shape(build)))


def test_full_sizes_have_the_parameters_of_the_equations() -> None:
    # d = 768: two text and two image projections, and per layer W_h, W_u, W_v with bias and the LN.
    d, t, v = 768, 768, 2048
    expected = 2 * (t * d + d) + 2 * (v * d + d) + 2 * (3 * (d * d + d) + 2 * d)
    assert parameters("wikidiverse", t, v) == expected
    assert parameters("wikimel", t, v) == expected
    # Paper form on text: two projections, and per layer W_h and W_a without bias.
    assert parameters("wikimel_text", 384, 0) % 384 == 0


def test_paper_hyperparameters() -> None:
    for name, r in (("wikidiverse", 10), ("wikimel", 100)):
        config = importlib.import_module(f"configs.{name}").get_config()
        assert (config.train.epochs, config.train.batch, config.train.learning_rate) == (
            *(30, 64, 1e-3),
        )
        assert (config.loss.margin, config.model.layers, config.model.width) == (0.25, 2, 768)
        assert config.retrieval.r == r
        assert config.graph.gold_slot == "never"
        assert config.encoders.text == "bert-base-cased"
