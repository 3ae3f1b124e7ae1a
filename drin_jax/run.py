"""One experiment from its config: store -> model -> training -> evaluation -> report."""

import dataclasses
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from data_pipeline import output
from data_pipeline.files import write_whole
from data_pipeline.output import say
from data_pipeline.schema import RELATIONS, SPLITS, Mention, UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.config import check, flat
from drin_jax.encoders import pretrained
from drin_jax.evaluation import predictions, report
from drin_jax.evaluation.calibration import calibrate, decisions
from drin_jax.evaluation.evaluate import SplitView, baseline_scores, evaluate_split
from drin_jax.evaluation.reordering import FOLDER, WITH, WITHOUT, Reordering, open_reordering
from drin_jax.evaluation.scoring import Setup, SplitScorer, Trained
from drin_jax.evaluation.whole_base import raw_encoders
from drin_jax.explain import linked
from drin_jax.explain.cases import Outcome
from drin_jax.extract.preparation import describe, prepare
from drin_jax.extract.stored import store_path
from drin_jax.parallel import multihost
from drin_jax.training.session import Session, begun
from drin_jax.training.setup import LEAK_WARNING
from drin_jax.workdir import CONFIG, REPORT, claim, open_run

SAVE_SECONDS = 1.0  # at the ends of epochs; a save takes a tenth of it
SAVED, SAVED_NAMES = "model.safetensors", "parameters."  # of a folder of save_pretrained


def execute(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Prepare, train, evaluate and report; returns what `report.json` holds.

    What ends in a mistake leaves `config.json` as it was; where there was none, a new one is kept
    only beside a checkpoint.
    """
    began = time.perf_counter()
    check(config)
    if config.train.init and not begun(workdir):
        _is_saved(config.train.init)  # or it is told before anything is made
    path, first = workdir / CONFIG, jax.process_index() == 0
    before = path.read_bytes() if first and path.is_file() else None
    if first:
        claim(workdir, config)
    try:
        return _execute(config, workdir, began)
    except UserError:
        if before is not None:
            write_whole(path, lambda file: file.write(before))
        elif first and not begun(workdir):
            path.unlink(missing_ok=True)
        raise


def _execute(config: ConfigDict, workdir: Path, began: float) -> dict[str, Any]:
    multihost.check_shared(workdir)
    store = _prepare(config, workdir)
    say(describe(store))
    prepared = time.perf_counter()
    if config.reranker.text:
        from drin_jax.reranking.fitting import ready

        mentions = ready(config, store)
    session = Session(config, store, lambda like: _initial(config.train.init, like))
    if session.setup.spec.gold_slot:
        say(LEAK_WARNING)
    say(_overview(config, session.setup))
    say(session.placement.describe())
    trainer = session.trainer(config.seed, workdir, save_seconds=SAVE_SECONDS)
    trainer.fit()
    trainer.save()
    trained = time.perf_counter()
    best_step, params = trainer.position.best_step, trainer.best_params()
    trainer.close()
    seconds, steps_run = trainer.seconds, trainer.steps_run
    run = Trained(config, store, session.setup, params, _system_name(config))
    scorer = session.scorer
    del session, trainer, params  # and with them what training alone needs of the devices
    if config.reranker.text:
        run = _reranked(run, scorer, mentions, workdir)
    result = _evaluate(run, scorer, workdir) | {"best_step": best_step}
    ended = time.perf_counter()
    result["seconds"] = {
        "prepare": prepared - began,
        "train": seconds,
        "evaluate": ended - trained,
        "total": ended - began,
    }
    result["steps_trained_now"] = steps_run
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    result["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    result["config"] = flat(config)
    if jax.process_index() == 0:
        _report(workdir, result)
    return result


def _prepare(config: ConfigDict, workdir: Path) -> Store:
    """The feature store: process 0 makes or checks it, the others open the same."""
    needs = models.needs(config.model.name, 1)

    def opened() -> Store:
        path = store_path(config, workdir)
        if not path.exists():
            raise UserError(
                f"no feature store at {path.absolute()}, where process 0 has it; put it on a file "
                "system that all machines share, or a copy there"
            )
        unread = config.copy_and_resolve_references()
        unread.data.verify = False  # process 0 has read every byte
        return prepare(unread, workdir, needs=needs)

    store = multihost.first_alone("features", lambda: prepare(config, workdir, needs=needs), opened)
    held = {"splits": store.splits, "sizes": store.sizes, "made from": store.made_from}
    multihost.check_equal(f"feature store {store.path}", held)
    return store


def _is_saved(place: str) -> bool:
    """Whether `train.init` names a folder of save_pretrained; else it is a workdir. UserError where
    it names neither."""
    saved, finished = (os.path.isfile(os.path.join(place, name)) for name in (SAVED, REPORT))
    if not saved and not finished:
        raise UserError(
            f"train.init is {place!r:.200}, which is neither the workdir of a finished run nor a "
            "folder of save_pretrained; name one, or leave it empty to start from random parameters"
        )
    return saved


def _initial(place: str, like: Any) -> Any:
    """The parameters of the model in `place`, laid out like `like`.

    Raises:
        UserError: it is not there, cannot be read, or has parameters of other names or shapes.
    """
    wanted = models.named(like)
    if _is_saved(place):
        arrays = pretrained.read_file(Path(place, SAVED))
        own = {name for name in arrays if name.startswith(SAVED_NAMES)}  # beside its memory
        found = {name.removeprefix(SAVED_NAMES): arrays[name] for name in own}
    else:
        found = models.named(open_run(Path(place)).params)
    if told := pretrained.misfits(found, wanted):
        raise UserError(
            f"train.init: the parameters of {place} do not fit this config ({told}); give the "
            "system the fields and encoders that it was trained with"
        )
    say(f"training starts from the parameters of {place}")
    leaves = [jax.numpy.asarray(found[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _overview(config: ConfigDict, setup: Setup) -> str:
    named = models.named(setup.params)
    arrays = {name.replace(".", "/"): np.asarray(leaf) for name, leaf in named.items()}
    count = sum(array.size for array in arrays.values())
    table = parameter_overview.get_parameter_overview(arrays, include_stats=False)
    return (
        f"{config.model.name}, {count:,} parameters, {setup.parallel.size} "
        f"{jax.default_backend()} device(s), {config.parallel.impl}\n{table}"
    )


def _reranked(
    run: Trained, scorer: SplitScorer, mentions: Sequence[Mention], workdir: Path
) -> Trained:
    """The run with what its reranker said, which is trained first where it is not."""
    from drin_jax.reranking.fitting import fit

    spec, store = run.setup.spec, run.store
    scores = {split: scorer.scores(run.params, store, split) for split in SPLITS}
    calibration = calibrate(SplitView.of(store, "valid", spec.r), scores["valid"])

    def trained() -> Reordering:
        fit(run.config, store, mentions, scores, calibration, workdir)
        return opened()

    def opened() -> Reordering:
        return open_reordering(workdir / FOLDER, store, spec.r)

    reordering = multihost.first_alone("reranker", trained, opened)
    return dataclasses.replace(run, system=run.system + WITH, reordering=reordering)


def _evaluate(run: Trained, scorer: SplitScorer, workdir: Path) -> dict[str, Any]:
    store, spec, splits = run.store, run.setup.spec, {}
    calibration = None
    ks = [k for k in run.config.eval.ks if k <= spec.r]
    for split in ("valid", "test"):
        view = SplitView.of(store, split, spec.r)
        scores = scorer.scores(run.params, store, split)
        systems = baseline_scores(store, view)
        if run.reordering:
            systems |= {WITHOUT: scores}
            scores = run.reordering.scores(split, scores)
        systems |= {run.system: scores}
        whole = raw_encoders(store, split) if run.config.eval.scope == "kb" else None
        calibration = calibration or calibrate(view, scores)  # by valid, which comes first
        splits[split] = evaluate_split(view, systems, ks, whole)
        splits[split]["decisions"] = decisions(view, scores, calibration)
        if jax.process_index() == 0:
            predictions.write(workdir, store, view, scores, calibration)
    found = Outcome(view, scores)
    return {
        "name": f"{store.name}: {run.system}",
        "system": run.system,
        "protocol": run.protocol,
        "ks": ks,
        "gold_in_graph": spec.gold_slot,
        "store": {
            "fingerprint": store.fingerprint(),
            "knowledge_base": store.kb.fingerprint(),
            "counts": store.report.get("counts", {}),
            "groups": store.groups,
        },
        "splits": splits,
        "calibration": dataclasses.asdict(calibration) if calibration else {},
        "examples": linked.examples(run, found) if jax.process_index() == 0 else {},
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
    paths = report.write(workdir, result)  # before anything is printed: a terminal may be gone
    report.show(result)
    console = output.console()
    seconds = result["seconds"]
    console.print(
        f"best step {result['best_step']}; prepared in {seconds['prepare']:.1f} s, trained "
        f"{result['steps_trained_now']} steps in {seconds['train']:.1f} s, evaluated in "
        f"{seconds['evaluate']:.1f} s; peak memory {result['peak_memory_gb']:.2f} GB"
    )
    if result["gold_in_graph"]:
        console.print(LEAK_WARNING)
    console.print(f"report: {paths[1]}  {paths[0]}", soft_wrap=True)
