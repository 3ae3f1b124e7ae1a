"""One experiment from its config: store -> model -> training -> evaluation -> report."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from drin_jax import command, extract, models, shared_folders
from drin_jax.config import check
from drin_jax.evaluation import report
from drin_jax.evaluation.evaluate import SplitView, baseline_scores, evaluate_split
from drin_jax.models.graph import RELATIONS
from drin_jax.training.session import Session
from drin_jax.training.setup import LEAK_WARNING, Setup


def execute(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Prepare, train, evaluate and report; returns what `report.json` holds."""
    began = time.perf_counter()
    check(config)
    shared_folders.claim(workdir, config)
    store = shared_folders.prepare(config, workdir, models.needs(config.model.name, 1))
    extract.say(extract.describe(store))
    prepared = time.perf_counter()
    session = Session(config, store)
    if session.setup.spec.gold_slot:
        extract.say(LEAK_WARNING)
    extract.say(_overview(config, session.setup))
    extract.say(session.placement.describe())
    trainer = session.trainer(config.seed, workdir)
    trainer.fit()
    trained = time.perf_counter()
    result = _evaluate(session, trainer.best_params())
    trainer.close()
    result["best_step"] = trainer.position.best_step
    result["seconds"] = {
        "prepare": prepared - began,
        "train": trainer.seconds,
        "evaluate": time.perf_counter() - trained,
        "total": time.perf_counter() - began,
    }
    result["steps_trained_now"] = trainer.steps_run
    result["peak_memory_gb"] = _peak_memory_gb()
    result["config"] = command.flat(config)
    if jax.process_index() == 0:
        _report(workdir, result)
    return result


def _overview(config: ConfigDict, setup: Setup) -> str:
    tree = nnx.to_pure_dict(setup.params)
    shapes = jax.tree.map(np.asarray, tree)
    count = sum(a.size for a in jax.tree.leaves(shapes))
    table = parameter_overview.get_parameter_overview(_named(shapes), include_stats=False)
    return (
        f"{config.model.name}, {count:,} parameters, {setup.parallel.size} "
        f"{jax.default_backend()} device(s), {config.parallel.impl}\n{table}"
    )


def _named(tree: Any) -> Any:
    """String keys throughout, as clu's overview wants them."""
    if isinstance(tree, dict):
        return {str(name): _named(value) for name, value in tree.items()}
    return tree


def _evaluate(session: Session, params: Any) -> dict[str, Any]:
    config, store, setup = session.config, session.store, session.setup
    splits = {}
    ks = [k for k in config.eval.ks if k <= setup.spec.r]
    for split in ("valid", "test"):
        view = SplitView.of(store, split, setup.spec.r)
        systems = baseline_scores(view)
        systems[_system_name(config)] = session.scores(params, split)
        splits[split] = evaluate_split(view, systems, ks)
    return {
        "name": f"{store.name}: {_system_name(config)}",
        "system": _system_name(config),
        "protocol": setup.protocol.label(),
        "ks": ks,
        "gold_in_graph": setup.spec.gold_slot,
        "store": {"counts": store.report.get("counts", {}), "groups": store.groups},
        "splits": splits,
    }


def _system_name(config: ConfigDict) -> str:
    details = [f"{config.loss.form} loss"]
    if config.model.name == "drin":
        details.insert(0, f"{config.model.form} form")
        if len(set(config.graph.relations)) < len(RELATIONS):
            details.append("relations " + " ".join(config.graph.relations))
        if config.graph.edges == "static":
            details.append("static edges")
    if config.graph.gold_slot == "upstream":
        details.append("GOLD IN GRAPH")
    return f"{config.model.name.upper()} ({', '.join(details)})"


def _report(workdir: Path, result: dict[str, Any]) -> None:
    ties_for = ("name matching", result["system"])
    console = Console(highlight=False)
    for split in result["splits"].values():
        report.print_split(split, result["protocol"], result["ks"], ties_for[:1])
    paths = report.write(workdir, result, result["ks"], ties_for)
    seconds = result["seconds"]
    console.print(
        f"best step {result['best_step']}; prepared in {seconds['prepare']:.1f} s, trained "
        f"{result['steps_trained_now']} steps in {seconds['train']:.1f} s, evaluated in "
        f"{seconds['evaluate']:.1f} s; peak memory {result['peak_memory_gb']:.2f} GB"
    )
    if result["gold_in_graph"]:
        console.print(LEAK_WARNING)
    console.print(f"report: {paths[1]}  {paths[0]}", soft_wrap=True)


def _peak_memory_gb() -> float:
    """Peak resident memory of this process in GB; macOS counts bytes, Linux kilobytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
