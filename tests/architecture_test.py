"""Who may import whom (docs/decisions.md holds the why), and that everything can be imported."""

import ast
import importlib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("drin_jax", "data_pipeline", "configs", "benchmarks")
OURS = (*PACKAGES, "tests", "launch")

# Of drin_jax: the parts that read data, the library call, and the commands with what they share.
KNOW_THE_DATA = {
    *("train", "evaluate", "extract", "linker"),
    *("main", "run", "building", "command", "audit", "recall", "dense_retrieval"),
    *("sample_training", "experiments", "explain", "export", "finished"),
    *("seeds", "seeds_program", "resident", "dispatch", "placement", "shared_folders"),
}
PLUMBING = ("data_pipeline.schema", "data_pipeline.progress", "data_pipeline.hub")
KNOW_THE_ENCODERS = {"extract", "linker", "sample_training"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(name: str) -> set[str]:
    """What a module imports, also inside its functions; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def reaches(name: str, target: str) -> bool:
    return any(f"{found}.".startswith(f"{target}.") for found in imports(name))


def within(package: str) -> list[str]:
    return [name for name in MODULES if f"{name}.".startswith(f"{package}.")]


def part(name: str) -> str:
    """`drin_jax.models.bert_matcher` -> `models`."""
    return name.split(".")[1] if "." in name else ""


def test_the_walk_sees_imports():
    assert len(MODULES) > 30
    assert {"drin_jax.training.losses", "drin_jax.training.losses.margin_loss"} <= imports(
        "drin_jax.parity"
    )
    assert reaches("drin_jax.parity", "drin_jax.training.losses")
    assert not reaches("drin_jax.parity", "drin_jax.loss")


@pytest.mark.parametrize("library", ["jax", "flax", "optax", "torch", "drin_jax"])
def test_data_pipeline_knows_no_devices(library):
    assert [name for name in within("data_pipeline") if reaches(name, library)] == []


def test_only_extract_and_linker_know_the_encoders():
    users = {part(name) for name in within("drin_jax") if reaches(name, "drin_jax.encoders")}
    assert users - {"encoders"} <= KNOW_THE_ENCODERS


def test_only_some_know_the_data():
    users = {part(name) for name in within("drin_jax") if reaches(name, "data_pipeline")}
    assert users <= KNOW_THE_DATA


def test_nobody_imports_configs_but_benchmarks():
    users = [name for name in MODULES if reaches(name, "configs")]
    assert set(users) <= {*within("configs"), *within("benchmarks")}
    for name in within("configs"):
        assert {found for found in imports(name) if found.startswith("drin_jax")} <= {
            *("drin_jax.config", "drin_jax.config.card")
        }
        assert not reaches(name, "data_pipeline")


@pytest.mark.parametrize("room", ["tests", "benchmarks", "launch"])
def test_nothing_imports_tests_benchmarks_or_launch(room):
    users = [name for name in MODULES if reaches(name, room)]
    assert [
        name for name in users if not name.startswith("benchmarks") or room != "benchmarks"
    ] == []


@pytest.mark.parametrize(
    ("room", "neighbours"),
    [
        ("drin_jax.types", ()),
        ("drin_jax.evaluation.ranks", ("drin_jax.types",)),
        ("drin_jax.training.losses", ("drin_jax.types", "drin_jax.models.graph")),
        ("drin_jax.models", ("drin_jax.types", "drin_jax.models")),
        ("drin_jax.encoders", ("drin_jax.types", *PLUMBING, "drin_jax.encoders")),
        ("data_pipeline.schema", ()),
        (
            "data_pipeline.readers",
            (
                "data_pipeline.schema",
                "data_pipeline.progress",
                "data_pipeline.splits",
                "data_pipeline.readers",
            ),
        ),
        (
            "data_pipeline.retrieval",
            ("data_pipeline.schema", "data_pipeline.progress", "data_pipeline.retrieval"),
        ),
    ],
)
def test_arrows_point_one_way(room, neighbours):
    assert within(room)
    for name in within(room):
        strangers = {
            found
            for found in imports(name)
            if found.split(".")[0] in OURS
            and found not in PACKAGES  # of `from drin_jax import models`, drin_jax.models counts
            and not any(f"{found}.".startswith(f"{neighbour}.") for neighbour in neighbours)
        }
        assert strangers == set(), f"{name} may import of ours only {neighbours}"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    if reaches(name, "torch") or reaches(name, "benchmarks.torch_drin"):
        pytest.importorskip("torch", reason="this module is for extra dev")
    if reaches(name, "apache_beam"):
        pytest.importorskip("apache_beam", reason="this module is for extra beam")
    importlib.import_module(name)
