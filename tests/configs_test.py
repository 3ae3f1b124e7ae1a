"""Every config builds, is locked, and describes a model that can be built at its full size."""

import hashlib
import importlib
import json
from pathlib import Path

import jax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import common, forms
from data_pipeline.schema import UserError
from drin_jax import config as table
from drin_jax import models
from drin_jax.config import BEFORE, check, flat, nested
from drin_jax.extract import stored
from drin_jax.training.setup import set_up
from drin_jax.workdir import claim
from tests.support.commands import assert_one_clear_line
from tests.support.commands import run as run_command
from tests.support.fixtures import tiny_store

FORMS = "forms"  # fields of configs, no config
NAMES = sorted(
    path.stem for path in Path(common.__file__).parent.glob("[a-z]*.py") if path.stem != FORMS
)
PUBLISHED = ("wikidiverse", "wikimel", "richpedia")


@pytest.mark.parametrize("name", NAMES)
def test_config_is_locked_complete_and_a_card(name: str) -> None:
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    assert set(flat(config)) == set(flat(common.get_config()))
    with pytest.raises(AttributeError):
        config.train.epoch = 3
    check(config)
    if name != "common":
        assert f"--config=configs/{name}.py" in module.__doc__


def get(name: str, *form: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(*form)


def parameters(config: ConfigDict, text_width: int, image_width: int, system: str = "drin") -> int:
    def build() -> nnx.State:
        fields = dict(config.model) | {"name": system}
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
    for name in PUBLISHED:
        assert parameters(get(name), t, v) == expected
        # Paper form: per layer W_h and W_a without bias.
        paper = 2 * (t * d + d) + 2 * (v * d + d) + 2 * 2 * d * d
        assert parameters(get(name, "paper"), t, v) == paper
    assert parameters(get("wikimel_text"), 384, 0) == 2 * (384 * 384 + 384) + 2 * 2 * 384 * 384


@pytest.mark.parametrize("name", NAMES)
def test_every_system_builds_at_full_size(name: str) -> None:
    """Shapes only: nothing is allocated."""
    text, image = {"sample": (128, 64), "wikimel_text": (384, 0)}.get(name, (768, 2048))
    for form in forms.FORMS if name in PUBLISHED else (None,):
        config = get(name, form) if form else get(name)
        for system in models.MODELS:
            if system == "ghmfc" and not image:
                with pytest.raises(UserError, match="no pictures"):
                    parameters(config, text, image, system)
            else:
                assert parameters(config, text, image, system) > 0


def test_forms_differ_where_the_paper_and_its_program_do() -> None:
    for name, entity in (("wikidiverse", "pooler"), ("wikimel", "inner"), ("richpedia", "inner")):
        upstream, paper = flat(get(name)), flat(get(name, "paper"))
        changed = {field for field in upstream if upstream[field] != paper[field]}
        assert changed == {
            *("model.form", "loss.form", "encoders.mention_edge", "encoders.entity_vertex"),
            *({"encoders.entity_edge"} if entity == "pooler" else set()),
            "encoders.entity_objects",
        }
        assert upstream["encoders.entity_vertex"] == entity
        check(get(name, "paper"))


def test_an_unknown_form_is_one_line(tmp_path: Path) -> None:
    args = ("--config=configs/wikimel.py:published", f"--workdir={tmp_path}")
    assert_one_clear_line(run_command("drin_jax.main", *args), "published", "paper", code=2)


def test_paper_hyperparameters() -> None:
    for name, r in (("wikidiverse", 10), ("wikimel", 100), ("richpedia", 100)):
        config = get(name)
        assert (config.train.epochs, config.train.batch, config.train.learning_rate) == (
            *(30, 64, 1e-3),
        )
        assert (config.loss.margin, config.model.layers, config.model.width) == (0.25, 2, 768)
        assert config.retrieval.r == r
        assert config.graph.gold_slot == "never"
        assert config.encoders.text == "bert-base-cased"


def test_a_workdir_from_before_a_field_was_there_goes_on(tmp_path: Path) -> None:
    config = common.get_config()
    claim(tmp_path, config)
    path = tmp_path / "config.json"
    older = {k: v for k, v in json.loads(path.read_text()).items() if k not in BEFORE}
    path.write_text(json.dumps(older))
    claim(tmp_path, config)
    assert set(BEFORE) <= set(json.loads(path.read_text()))
    path.write_text(json.dumps(older))
    config.model.recurrent_width = 64
    with pytest.raises(UserError, match=r"model\.recurrent_width 0 -> 64"):
        claim(tmp_path, config)


def test_of_every_field_the_table_says_what_it_decides() -> None:
    fields = flat(common.get_config())
    assert set(table.FIELDS) == set(fields)
    assert set(BEFORE) <= set(fields)
    assert {*table.CHOICES, *table.BOUNDS} <= set(fields)
    numbers = {n for n, value in fields.items() if type(value) in (int, float)}
    assert set(table.BOUNDS) == numbers
    assert {*table.RESUMABLE, *table.COMPARABLE} <= set(table.FIELDS.values())


def test_the_settings_of_stores_stay_as_they_are_written() -> None:
    """What stands in the stores there are; another name or value would refuse them all."""
    made_from = stored.settings(get("wikimel"))
    assert len(made_from) == 34
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    assert digest == "05b8d03d3024075a77520503193de04264b0e9a3b180dff320e36b0f7f8a2c98"
    release = get("wikimel")
    release.data.reader = "release"
    names = ["data.name", "data.reader", "data.split", "data.valid_fraction"]
    assert sorted(stored.settings(release)) == names


def test_a_config_is_nested_as_it_was() -> None:
    config = get("sample")
    assert nested(flat(config)).to_dict() == config.to_dict()


def test_a_card_of_ones_own_is_made_of_the_projects(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from drin_jax.config import card\n\n\n"
        "def get_config():\n"
        "    config = card('sample').get_config()\n"
        "    config.train.epochs = 0\n"
        "    return config\n"
    )
    result = run_command("drin_jax.main", f"--config={mine}", f"--workdir={tmp_path / 'w'}")
    assert_one_clear_line(result, "train.epochs is 0")


@pytest.mark.parametrize("form", [("--config=sampel",), ("--config", "sampel:paper")])
def test_an_unknown_name_lists_those_there_are(form: tuple[str, ...], tmp_path: Path) -> None:
    result = run_command("drin_jax.recall", *form, f"--workdir={tmp_path}")
    assert_one_clear_line(result, "'sampel'", *NAMES, code=2)
    assert FORMS not in result.stderr


def test_a_name_is_the_card_of_that_name(tmp_path: Path) -> None:
    flags = (f"--workdir={tmp_path}", f"--config.data.root={tmp_path / 'no'}")
    same = {**flat(get("wikimel", "paper")), "data.root": str(tmp_path / "no")}
    (tmp_path / "config.json").write_text(json.dumps(same))  # another would be refused
    result = run_command("drin_jax.main", "--config", "wikimel:paper", *flags)
    assert_one_clear_line(result, "MEL-GHMFC")
    result = run_command("drin_jax.main", "--config", "wikimel:upstream", *flags)
    assert_one_clear_line(result, "made by another config")


OUT_OF_BOUNDS = {
    "train.learning_rate": (float("nan"), float("inf"), 0.0, -1.0),
    "loss.margin": (-0.1, float("nan")),
    "graph.relations": ((), ("tt", "xx")),
    "eval.ks": ((), (0,), (-1,), ("a",), (True,), (1.5,)),
    "data.name": ("a\udcff",),
    "eval.select_by": ("hits@" + "9" * 5000, "hits@0", "hits@-1", "hits@", "hits@x", "f1"),
    "train.patience": (-1,),
    "image.workers": (-1,),
    "retrieval.r": (0, 1_000_000_000),
    "model.width": (0, 1_000_000),
    "seed": (-1, 2**32, 2**64, 10**30),
    "encoders.mention_vertex": ("first",),
    "model.form": ("other",),
    "graph.adjacency": ("sparse",),
    "model.dtype": ("float16",),
    "encoders.dtype": ("float64",),
    "parallel.impl": ("gspmd",),
    "data.tables": ("disk",),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_what_cannot_be_meant_is_refused_before_any_work(name: str) -> None:
    for value in OUT_OF_BOUNDS[name]:
        config = common.get_config()
        table.check(config)
        config.update_from_flattened_dict({name: value})
        with pytest.raises(UserError, match=rf"^{name} (is|has|holds)"):
            table.check(config)


def test_a_model_that_no_memory_holds_is_refused_before_it_is_built(tmp_path: Path) -> None:
    config = common.get_config()
    config.model.width = 65_536
    config.model.layers = 20
    store = tiny_store(tmp_path)
    with pytest.raises(UserError, match=r"parameters; training takes \d+\.\d GB for them"):
        set_up(config, store)
