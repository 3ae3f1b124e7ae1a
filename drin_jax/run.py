"""One experiment from its config: store -> model -> training -> evaluation -> report."""

import dataclasses
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from clu import parameter_overview
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from data_pipeline.loader import TrainLoader, TrainOrder
from data_pipeline.store import Store
from drin_jax import command, extract, losses, models, report, shared_folders
from drin_jax import placement as placing
from drin_jax.dispatch import HostSteps, ResidentSteps, Steps
from drin_jax.evaluate import (
    Protocol,
    Scorer,
    SplitView,
    baseline_scores,
    evaluate_split,
    valid_score,
)
from drin_jax.models.graph import RELATIONS
from drin_jax.parallel import DataParallel
from drin_jax.resident import ONE_DEVICE, DeviceTables
from drin_jax.train import Trainer
from drin_jax.train_step import create_state, make_train_step
from drin_jax.types import UserError

LEAK_WARNING = (
    "warning: graph.gold_slot is 'upstream': the gold is put into every graph. Scores of this run "
    "reproduce a leaking protocol and measure nothing else (docs/protocol.md)."
)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config stands for, built: everything but the data that flows through."""

    graphdef: nnx.GraphDef
    params: Any
    parallel: DataParallel
    r: int
    gold_slot: bool
    needs: tuple[str, ...]
    protocol: Protocol


def check(config: ConfigDict) -> None:
    """UserError for a field whose value cannot be meant, before any work is done."""
    gold_slot, edges, relations = config.graph.gold_slot, config.graph.edges, config.graph.relations
    if gold_slot not in ("never", "upstream"):
        raise UserError(f"graph.gold_slot is {gold_slot!r}; known are never, upstream")
    if edges not in ("dynamic", "static"):
        raise UserError(f"graph.edges is {edges!r}; known are dynamic, static")
    unknown = [name for name in relations if name not in RELATIONS]
    if unknown:
        raise UserError(f"graph.relations has {unknown[0]!r}; known are {', '.join(RELATIONS)}")
    if config.loss.form not in losses.FORMS:
        known = ", ".join(losses.FORMS)
        raise UserError(f"loss.form is {config.loss.form!r}; known are {known}")
    select_by = config.eval.select_by
    if select_by != "mrr" and not select_by.removeprefix("hits@").isdigit():
        raise UserError(f"eval.select_by is {select_by!r}; known are mrr, hits@K")
    for group, name in (("train", "batch"), ("train", "epochs"), ("eval", "batch"),
                        ("train", "save_every"), ("train", "log_every"), ("model", "width"),
                        ("train", "accumulate"),
                        ("model", "layers")):  # fmt: skip
        if config[group][name] < 1:
            raise UserError(f"{group}.{name} is {config[group][name]}; it must be at least 1")


def set_up(config: ConfigDict, store: Store) -> Setup:
    """Build model and devices for this config over this store."""
    r = config.graph.r or store.sizes["r"]
    if not 0 < r <= store.sizes["r"]:
        raise UserError(f"graph.r is {r}, but the store holds {store.sizes['r']} candidates")
    parallel = DataParallel(config.parallel.impl, config.parallel.devices)
    parallel.check_batch(config.train.batch, "train.batch")
    parallel.check_batch(config.eval.batch, "eval.batch")
    share = config.train.batch // parallel.size
    if share % config.train.accumulate:
        raise UserError(
            f"train.accumulate is {config.train.accumulate}, but a device's share of train.batch "
            f"is {share}; use a divisor of {share}"
        )
    model = build_model(config, store.sizes["text_width"], store.sizes["image_width"])
    graphdef, params = nnx.split(model, nnx.Param)
    retrieval = config.retrieval
    source = f"names ({retrieval.scorer})" if retrieval.method == "names" else retrieval.method
    return Setup(
        graphdef=graphdef,
        params=params,
        parallel=parallel,
        r=r,
        gold_slot=config.graph.gold_slot == "upstream",
        needs=models.needs(config.model.name, store.sizes["image_width"]),
        protocol=Protocol(source, r, config.graph.gold_slot),
    )


def build_model(config: ConfigDict, text_width: int, image_width: int, **fields: Any) -> nnx.Module:
    """The config's system over features of these widths; `fields` are more of its constructor's."""
    named = dict(config.model)
    return models.build(
        named.pop("name"),
        text_width,
        image_width,
        dtype=named.pop("dtype"),
        relations=tuple(config.graph.relations),
        dynamic=config.graph.edges == "dynamic",
        adjacency=config.graph.adjacency,
        rngs=nnx.Rngs(config.seed),
        **named | fields,
    )


def make_steps(
    config: ConfigDict,
    store: Store,
    setup: Setup,
    optimizer: optax.GradientTransformation,
    tables: DeviceTables | None,
) -> Steps:
    """The training steps of this config, on tables of the train split, or on batches read from the
    store where there are none."""
    step = make_train_step(
        setup.graphdef,
        optimizer,
        loss_form=config.loss.form,
        margin=config.loss.margin,
        gold_slot=setup.gold_slot,
        accumulate=config.train.accumulate,
    )
    train = config.train
    order: dict[str, Any] = {
        "batch": train.batch,
        "seed": config.seed,
        "max_mentions": train.max_mentions,
    }
    if tables is not None:
        rows = TrainOrder(tables.mentions, **order)
        return ResidentSteps(step, tables, rows, setup.parallel, train.log_every)
    loader = TrainLoader(
        store,
        epochs=train.epochs,
        r=setup.r,
        gold_slot=setup.gold_slot,
        needs=setup.needs,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **order,
    )
    return HostSteps(step, loader, setup.parallel)


def execute(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Prepare, train, evaluate and report; returns what `report.json` holds."""
    began = time.perf_counter()
    check(config)
    shared_folders.claim(workdir, config)
    store = shared_folders.prepare(config, workdir, models.needs(config.model.name, 1))
    extract.say(extract.describe(store))
    prepared = time.perf_counter()
    setup = set_up(config, store)
    if setup.gold_slot:
        extract.say(LEAK_WARNING)
    extract.say(_overview(config, setup))
    view = SplitView.of(store, "valid", setup.r)
    if not np.any(view.gold >= 0):
        raise UserError(
            "no valid mention has its gold among the candidates; nothing selects a model"
        )
    options: dict[str, Any] = {"r": setup.r, "gold_slot": setup.gold_slot, "needs": setup.needs}
    placement = placing.choose(config.data.tables, store, setup.parallel, **options)
    extract.say(placement.describe())
    tables = None
    if placement.layout:
        tables = DeviceTables.of(store, "train", layout=placement.layout, **options)
    scorer = Scorer(
        setup.graphdef,
        setup.parallel,
        batch=config.eval.batch,
        tables=tables,
        layout=placement.layout or ONE_DEVICE,
        **options,
    )
    optimizer = optax.adam(config.train.learning_rate)
    steps = make_steps(config, store, setup, optimizer, tables)
    trainer = Trainer(
        state=create_state(setup.params, optimizer),
        steps=steps,
        parallel=setup.parallel,
        workdir=workdir,
        evaluate=lambda params: valid_score(
            view, scorer.scores(params, store, "valid"), config.eval.select_by
        ),
        describe_step=lambda step: _mentions_of(store, steps.order, step),
        epochs=config.train.epochs,
        patience=config.train.patience,
        save_every=config.train.save_every,
        log_every=config.train.log_every,
    )
    trainer.fit()
    trained = time.perf_counter()
    result = _evaluate(config, store, setup, scorer, trainer.best_params())
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
    _write_report(config, workdir, result)
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


def _mentions_of(store: Store, order: TrainOrder, step: int) -> str:
    rows = order.rows(step)
    table = store.array("train_mention")
    names = store.strings("mention_id")
    ids = [names[int(table[row])] for row in rows]
    shown = ", ".join(ids[:8]) + (", …" if len(ids) > 8 else "")
    return f"its batch holds the mentions {shown}"


def _evaluate(
    config: ConfigDict, store: Store, setup: Setup, scorer: Scorer, params: Any
) -> dict[str, Any]:
    splits = {}
    ks = [k for k in config.eval.ks if k <= setup.r]
    for split in ("valid", "test"):
        view = SplitView.of(store, split, setup.r)
        systems = baseline_scores(view)
        systems[_system_name(config)] = scorer.scores(params, store, split)
        splits[split] = evaluate_split(view, systems, ks)
    return {
        "name": f"{store.name}: {_system_name(config)}",
        "system": _system_name(config),
        "protocol": setup.protocol.label(),
        "ks": ks,
        "gold_in_graph": setup.gold_slot,
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


def _write_report(config: ConfigDict, workdir: Path, result: dict[str, Any]) -> None:
    if jax.process_index() != 0:
        return
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
