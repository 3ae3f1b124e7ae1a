"""Results of a suite as `results.load` gives them, of made-up scores: what a report is made of."""

from pathlib import Path
from typing import Any

import numpy as np

from configs import sample
from data_pipeline import schema
from drin_jax.config import flat
from drin_jax.evaluation.evaluate import SplitView, evaluate_split
from drin_jax.experiments import suites
from drin_jax.experiments.results import Results, Row, Run
from drin_jax.experiments.significance import compare

KINDS = ("text", "scene", "both")
KS = (1, 3, 5)
MENTIONS, CANDIDATES, EPOCHS = 120, 6, 6


def view(split: str, seed: int) -> SplitView:
    """Mentions whose gold is mostly retrieved, of three kinds, and a kind that no mention has."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(-1, CANDIDATES, MENTIONS)
    kind = rng.integers(0, len(KINDS), MENTIONS)
    return SplitView(
        split=split,
        candidates=np.ones((MENTIONS, CANDIDATES), bool),
        retrieval_score=np.sort(rng.random((MENTIONS, CANDIDATES)))[:, ::-1],
        text_edge=rng.random((MENTIONS, CANDIDATES)),
        gold=gold,
        gold_any=gold,
        retrieved=CANDIDATES,
        gold_entity=np.where(gold < 0, schema.NIL, 7),
        groups={
            "clean": rng.random(MENTIONS) < 0.7,
            "unseen_entity": rng.random(MENTIONS) < 0.1,
            **{f"kind:{name}": kind == i for i, name in enumerate(KINDS)},
            "kind:never": np.zeros(MENTIONS, bool),
        },
    )


VIEWS = {split: view(split, i) for i, split in enumerate(("valid", "test"))}


def a_run(plan: suites.RowPlan, seed: int, skill: float, hostile: str) -> Run:
    """A run whose score of the gold is `skill` above noise."""
    config = plan.config(sample.get_config())
    rng = np.random.default_rng([seed, *plan.row.encode()])
    splits: dict[str, Any] = {}
    for split, of in VIEWS.items():
        scores = rng.normal(size=(MENTIONS, CANDIDATES))
        scores += skill * (np.arange(CANDIDATES) == of.gold[:, None])
        splits[split] = evaluate_split(of, {plan.title: scores}, KS)
    layers = config.model.layers + 1
    rise = np.linspace(0.3, 0.3 + skill / 8, layers)[:, None] * np.array([1, 0.8, 0.6, 0.5])
    sides = {
        "gold": (rise + rng.normal(size=(layers, 4)) / 50).tolist(),
        "other": [[0.3, 0.25, 0.2, None]] * layers,
    }
    data = {
        "system": plan.title,
        "ks": list(KS),
        "protocol": f"candidates: names (WRatio), r = {CANDIDATES}; gold in graph: …{hostile}",
        "config": flat(config) | {"seed": seed},
        "gold_in_graph": config.graph.gold_slot == "upstream",
        "valid_curve": list(0.9 - 0.6 * np.exp(-np.arange(EPOCHS - seed % 2) * skill / 2)),
        "splits": splits,
    }
    if config.model.name == "drin":
        data["edges"] = dict.fromkeys(("all", *(f"kind:{k}" for k in KINDS)), sides)
    return Run(seed, Path("nowhere"), data)


def results(name: str, seeds: int = 3, hostile: str = "", **changed: Any) -> Results:
    """A suite over the sample world's config, all its rows with `seeds` made-up runs.

    Args:
        hostile: text that data may hold, put into every place that data reaches.
        changed: fields of `Results` to be other than that.
    """
    suite, config = suites.get(name), sample.get_config()
    config.data.name += hostile
    rows = []
    for i, plan in enumerate(suite.plan(config)):
        count = 0 if plan.why_not else seeds
        runs = [a_run(plan, seed, 1 + i / 4, hostile) for seed in range(count)]
        why = f"not run: {plan.why_not}" if plan.why_not else ""
        rows.append(Row(plan.row, plan.title + hostile, runs, why))
    of = VIEWS[suite.split]
    against = suite.default_against(config)
    right = {row.row: np.stack([_right(run, suite.split) for run in row.runs])
             for row in rows if row.runs}  # fmt: skip
    base = {
        split: evaluate_split(
            view, {"name matching": view.retrieval_score, "raw text edge R_tt": view.text_edge}, KS
        )["subsets"]
        for split, view in VIEWS.items()
    }
    fields: dict[str, Any] = {
        "suite": name,
        "title": suite.title,
        "rows": rows,
        "against": against,
        "config": flat(config),
        "untrained": base,
        "comparisons": [
            *compare(right, against),
            *compare(right, against, "clean", of.groups["clean"]),
        ],
        "audit": [{"finding": "overlap", "message": f"12 mentions share a text{hostile}"}],
        "environment": {"python": "3.11", "jax": "0.10", "commit": f"abc{hostile}"},
        "published": [],
        "split": suite.split,
        "command": f"python -m drin_jax.experiments {name} --config=configs/sample.py{hostile}",
    }
    return Results(**fields | changed)


def _right(run: Run, split: str) -> np.ndarray:
    """Which mentions [n] a run has right: as many as its Top-1 says, the same first ones."""
    return np.arange(MENTIONS) < round(run.metrics(split)["hits@1"] * MENTIONS)
