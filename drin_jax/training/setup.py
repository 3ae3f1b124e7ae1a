"""What a config stands for, built: model, devices, graphs and protocol."""

from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from data_pipeline.schema import EVIDENCE, GraphSpec, UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.evaluation.scoring import Setup
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training import device_tables

KEPT = 4  # of every parameter: itself, its gradient, and Adam's two means

LEAK_WARNING = (
    "warning: graph.gold_slot is 'upstream': the gold is put into every graph. Scores of this run "
    "reproduce a leaking protocol and measure nothing else (docs/protocol.md)."
)


def set_up(config: ConfigDict, store: Store, shapes: bool = False) -> Setup:
    """Build model and devices for this config over this store. UserError for numbers that do not
    fit, and where a device cannot hold what training keeps of every parameter.

    Args:
        shapes: of the parameters shapes alone, where they are read from somewhere.
    """
    needs = models.needs(config.model.name, store.sizes["image_width"])
    held = store.report.get("evidence", EVIDENCE)
    if "evidence" in needs and {k: [*v] for k, v in held.items()} != {
        k: [*v] for k, v in EVIDENCE.items()
    }:
        raise UserError(
            f"{store.path}: its relations hold other values than this program's; delete it to make "
            "it anew"
        )
    gold_slot = config.graph.gold_slot == "upstream"
    spec = store.fitted(GraphSpec(config.graph.r, gold_slot, needs))
    parallel = DataParallel(config.parallel.impl, config.parallel.devices)
    parallel.check_batch(config.train.batch, "train.batch")
    parallel.check_batch(config.eval.batch, "eval.batch")
    share = config.train.batch // parallel.size
    if share % config.train.accumulate:
        raise UserError(
            f"train.accumulate is {config.train.accumulate}, but a device's share of train.batch "
            f"is {share}; use a divisor of {share}"
        )
    widths = store.sizes["text_width"], store.sizes["image_width"]
    model = nnx.eval_shape(lambda: build_model(config, *widths))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.split(model, nnx.Param)[1]))
    needed, free = KEPT * 4 * count, device_tables.free_bytes()
    if needed > free:
        raise UserError(
            f"{config.model.name} of model.width {config.model.width} has {count:,} parameters; "
            f"training takes {needed / 1e9:.1f} GB for them, and {free / 1e9:.1f} GB are free; "
            "use a smaller model.width"
        )
    graphdef, params = nnx.split(model if shapes else build_model(config, *widths), nnx.Param)
    retrieval = config.retrieval
    source = f"names ({retrieval.scorer})" if retrieval.method == "names" else retrieval.method
    gold = "ALWAYS (published protocol, leaks)" if gold_slot else "only where retrieved"
    protocol = f"candidates: {source}, r = {spec.r}; gold in graph: {gold}"
    if not config.eval.pictures:
        protocol += "; scored without the mentions' pictures"
    return Setup(graphdef, params, parallel, spec, protocol, config.eval.pictures)


def build_model(config: ConfigDict, text_width: int, image_width: int) -> nnx.Module:
    """The config's system over features of these widths."""
    widths: dict[str, Any] = {"text_width": text_width, "image_width": image_width}
    return models.build(**widths, **model_fields(config), rngs=nnx.Rngs(config.seed))


def model_fields(config: ConfigDict) -> dict[str, Any]:
    """What `models.build` takes of a config."""
    graph = config.graph
    edges = {"dynamic": graph.edges == "dynamic", "adjacency": graph.adjacency}
    return {**config.model, **edges, "relations": tuple(graph.relations)}
