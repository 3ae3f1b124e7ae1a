"""Who may import whom (docs/decisions.md holds the why), and that everything can be imported."""

import ast
import functools
import importlib
import re
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

PACKAGES = ("drin_jax", "data_pipeline", "configs", "benchmarks")

# Rooms and files from the ground up: each imports from those before it, and from its own room.
LAYERS = (
    *("data_pipeline.schema", "data_pipeline.files", "data_pipeline.output"),
    *("data_pipeline.exits", "data_pipeline.hub", "data_pipeline.splits", "data_pipeline.arrays"),
    *("data_pipeline.readers", "data_pipeline.kb", "data_pipeline.store"),
    *("data_pipeline.pictures", "data_pipeline.retrieval", "data_pipeline.relations"),
    *("data_pipeline.sample", "data_pipeline.release", "data_pipeline.tfds_builders"),
    *("data_pipeline.validate", "data_pipeline.graphs", "data_pipeline.loader"),
    *("drin_jax.types", "drin_jax.models", "drin_jax.training.losses", "drin_jax.config"),
    *("drin_jax.parallel", "drin_jax.training.device_tables", "drin_jax.training.checkpoint"),
    *("drin_jax.training.metric_log", "drin_jax.training.step", "drin_jax.training.batches"),
    *("drin_jax.evaluation.ranks", "drin_jax.training.loop", "drin_jax.evaluation.evaluate"),
    *("drin_jax.evaluation.reordering", "drin_jax.evaluation.scoring"),
    *(
        "drin_jax.evaluation.whole_base",
        "drin_jax.evaluation.calibration",
        "drin_jax.evaluation.predictions",
        "drin_jax.evaluation.reliability",
    ),
    *("drin_jax.evaluation.tables", "drin_jax.evaluation.report", "drin_jax.training.setup"),
    *("drin_jax.training.session", "drin_jax.encoders", "drin_jax.extract"),
    *("drin_jax.reranking.reranker", "drin_jax.reranking", "drin_jax.workdir"),
    *("drin_jax.explain", "drin_jax.run", "drin_jax.command", "drin_jax.recall"),
    "drin_jax.kb",
    *("drin_jax.linking.query", "drin_jax.linking.result", "drin_jax.linking", "drin_jax.link"),
    *("drin_jax.serve", "drin_jax.audit", "drin_jax.parity", "drin_jax.export"),
    "drin_jax.experiments",
    *("drin_jax.report", "drin_jax.main", "drin_jax.cli"),
)
# What a room holds that is started by itself: above everything.
STARTED = ("__main__", "beam")
HALL = 8  # files in each package's own folder, beside __init__.py
CHAIN = 10  # files on the longest way of imports from drin_jax.main down


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
OURS = [name for name in MODULES if name.split(".")[0] in ("drin_jax", "data_pipeline")]


@functools.cache
def imports(name: str) -> frozenset[str]:
    """What a module imports, also inside its functions; of `from a import b`, a.b if it is one of
    our modules, else a."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return frozenset(found)


def within(name: str, room: str) -> bool:
    return f"{name}.".startswith(f"{room}.")


def layer(name: str) -> int:
    """Place in LAYERS; a package's face belongs to the highest of what it holds."""
    if name.rpartition(".")[2] in STARTED:
        return len(LAYERS)
    if "." not in name:  # a package's own version and name
        return -1 - PACKAGES.index(name)
    found = [i for i, room in enumerate(LAYERS) if within(name, room) or within(room, name)]
    assert found, f"{name} has no place in LAYERS"
    return max(found)


@functools.cache
def longest_chain(name: str) -> tuple[str, ...]:
    below = [imported for imported in imports(name) if imported in MODULES]
    return (name, *max((longest_chain(one) for one in below), key=len, default=()))


def test_the_walk_sees_imports():
    assert len(OURS) > 100
    assert "drin_jax.training.losses" in imports("drin_jax.training.step")
    assert longest_chain("data_pipeline.arrays.array_file")[1:] in [
        ("data_pipeline.output",),
        ("data_pipeline.schema",),
    ]


@pytest.mark.parametrize("name", OURS)
def test_arrows_point_down(name):
    own = layer(name)
    for imported in imports(name):
        if imported in OURS and not any(
            within(name, room) and within(imported, room) for room in LAYERS
        ):
            assert layer(imported) < own, f"{name} may not import {imported}"


def test_data_pipeline_knows_no_devices():
    strangers = ("jax", "flax", "optax", "torch", "drin_jax")
    for name in OURS:
        if within(name, "data_pipeline"):
            assert not [one for one in imports(name) if one.split(".")[0] in strangers], name


def test_nobody_imports_what_stands_outside_the_packages():
    for name in OURS:
        outside = [
            one
            for one in imports(name)
            if one.split(".")[0] in ("configs", "benchmarks", "tests", "launch")
        ]
        assert outside == [], name
    for name in MODULES:
        if name.split(".")[0] == "configs":
            assert imports(name) <= {"ml_collections", "drin_jax.config"}, name


def test_halls_are_small():
    for package in ("drin_jax", "data_pipeline"):
        files = [p.name for p in (ROOT / package).glob("*.py") if p.name != "__init__.py"]
        assert len(files) <= HALL, files


def test_main_stands_on_few_files():
    chain = longest_chain("drin_jax.main")
    assert len(chain) <= CHAIN, " -> ".join(chain)


def test_linking_starts_without_what_only_training_and_plots_need():
    heavy = ["matplotlib", "grain", "scipy.optimize", "torch", "drin_jax.run"]
    program = f"import sys; from drin_jax import Linker; print({{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_no_two_modules_share_a_name():
    names: dict[str, str] = {}
    for name in OURS:
        stem = MODULES[name].stem
        if stem not in ("__init__", "__main__"):
            assert stem not in names, f"{name} and {names[stem]}"
            names[stem] = name


def test_no_two_public_classes_share_a_name():
    classes: dict[str, str] = {}
    for name in OURS:
        for one in re.findall(r"(?m)^class ([A-Z]\w*)", MODULES[name].read_text()):
            assert one not in classes, f"{one} in {name} and in {classes[one]}"
            classes[one] = name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    wanted = imports(name)
    if any(one.startswith(("torch", "benchmarks.torch_")) for one in wanted):
        pytest.importorskip("torch", reason="this module is for extra dev")
    if any(within(one, "apache_beam") for one in wanted):
        pytest.importorskip("apache_beam", reason="this module is for extra beam")
    if {one.split(".")[0] for one in wanted} & {"fastapi", "starlette", "uvicorn", "pydantic"}:
        pytest.importorskip("fastapi", reason="this module is for extra serve")
    importlib.import_module(name)
