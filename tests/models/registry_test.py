"""The registry: every field of a config reaches the systems that take it, and none is ignored."""

import inspect
from typing import Any

import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import common
from data_pipeline.schema import UserError
from drin_jax import models
from drin_jax.models.drin import DRIN
from drin_jax.models.gcn import ACTIVATIONS, PaperLayer
from drin_jax.training.setup import build_model

# What a constructor takes that no config says: settings of the parity with reference arrays.
PARITY_ONLY = {"drin": {"pictures"}, "ghmfc": {"max_over_padding"}}
# By config field, a value that is not `config_of`'s, and what a system calls the field.
OTHERS: dict[str, tuple[Any, str]] = {
    "model.width": (12, "width"),
    "model.layers": (3, "layers"),
    "model.form": ("upstream", "form"),
    "model.mention_rows": ("sum", "mention_rows"),
    "model.edge_scale": ("none", "edge_scale"),
    "model.edge_activation": ("tanh", "edge_activation"),
    "model.vertex_activation": ("relu", "vertex_activation"),
    "model.recurrent_width": (5, "recurrent_width"),
    "model.image_text_threshold": (0.1, "image_text_threshold"),
    "model.image_entity_threshold": (0.2, "image_entity_threshold"),
    "model.members": (2, "members"),
    "model.state": (6, "state"),
    "model.dropout": (0.1, "dropout"),
    "model.drop_relations": (0.1, "drop_relations"),
    "model.drop_pictures": (0.1, "drop_pictures"),
    "model.vertices": (False, "vertices"),
    "model.nil": (True, "nil"),
    "graph.relations": (("tt",), "relations"),
    "graph.edges": ("static", "dynamic"),
    "graph.adjacency": ("dense", "adjacency"),
}


def config_of(name: str) -> ConfigDict:
    config = common.get_config()
    config.model.update({"name": name, "form": "paper", "width": 8})
    return config


def built(config: ConfigDict) -> nnx.GraphDef:
    """Everything of a system but the values of its parameters."""
    return nnx.split(nnx.eval_shape(lambda: build_model(config, 6, 4)))[0]


@pytest.mark.parametrize("name", models.MODELS)
def test_a_system_names_every_field_that_its_constructor_takes(name):
    system = models.MODELS[name]
    parameters = inspect.signature(system.__init__).parameters.values()
    takes = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    if name == "relational":  # what else it takes it hands on
        takes |= set(DRIN.fields)
    assert takes - {"dtype", "rngs"} - PARITY_ONLY.get(name, set()) == set(system.fields)


def test_every_field_of_a_config_is_some_systems():
    config = common.get_config()
    fields = {f"model.{field}" for field in config.model} - {"model.name", "model.dtype"}
    of_graphs = {f"graph.{field}" for field in config.graph} - {"graph.r", "graph.gold_slot"}
    assert OTHERS.keys() == fields | of_graphs
    taken = {field for system in models.MODELS.values() for field in system.fields}
    assert taken == {field for _, field in OTHERS.values()}


@pytest.mark.parametrize("name", models.MODELS)
def test_a_field_of_the_config_changes_what_takes_it_and_nothing_else(name):
    default = built(config_of(name))
    assert built(config_of(name)) == default
    for path, (value, field) in OTHERS.items():
        config, (group, key) = config_of(name), path.split(".")
        config[group][key] = value
        assert (built(config) != default) == (field in models.MODELS[name].fields), path


@pytest.mark.parametrize(("value", "scale"), [("rsqrt", 0.25), ("mean", 1 / 16), ("none", 1.0)])
def test_the_scale_of_equation_13_is_the_configs(value, scale):
    config = config_of("drin")
    config.model.update({"edge_scale": value, "width": 16, "edge_activation": "identity"})
    model = build_model(config, 6, 4)
    assert isinstance(model, DRIN)
    for layer in model.layers:
        assert isinstance(layer, PaperLayer)
        assert layer.scale == scale
        assert layer.edge_activation is ACTIVATIONS["identity"]


@pytest.mark.parametrize("name", ["drin", "jmel"])
def test_a_field_that_no_system_takes_is_told(name):
    with pytest.raises(UserError, match="system is 'edge_scalee'; known are adjacency, "):
        models.build(name, 6, 4, dtype="float32", rngs=nnx.Rngs(0), edge_scalee="none")
