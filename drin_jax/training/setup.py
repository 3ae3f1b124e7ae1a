"""What a config stands for, built: the model, the devices, the training steps."""

import dataclasses
from typing import Any

import jax
import optax
from flax import nnx
from ml_collections import ConfigDict

from data_pipeline import graphs
from data_pipeline.loader import TrainLoader, TrainOrder
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.evaluation.evaluate import Protocol
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training.batches import HostSteps, ResidentSteps, Steps
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.step import make_train_step

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
    spec: GraphSpec
    protocol: Protocol


def set_up(config: ConfigDict, store: Store) -> Setup:
    """Build model and devices for this config over this store."""
    needs = models.needs(config.model.name, store.sizes["image_width"])
    gold_slot = config.graph.gold_slot == "upstream"
    spec = graphs.fitted(GraphSpec(config.graph.r, gold_slot, needs), store)
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
        spec=spec,
        protocol=Protocol(source, spec.r, config.graph.gold_slot),
    )


def build_model(config: ConfigDict, text_width: int, image_width: int) -> nnx.Module:
    """The config's system over features of these widths."""
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
        **named,
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
        gold_slot=setup.spec.gold_slot,
        accumulate=config.train.accumulate,
    )
    train = config.train
    order: dict[str, Any] = {"batch": train.batch, "max_mentions": train.max_mentions}
    if tables is not None:
        rows = TrainOrder(tables.mentions, seed=config.seed, **order)
        return ResidentSteps(step, tables, rows, setup.parallel, train.log_every)

    def loader(seed: int) -> TrainLoader:
        return TrainLoader(
            store,
            epochs=train.epochs,
            seed=seed,
            spec=setup.spec,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            **order,
        )

    return HostSteps(step, loader, config.seed, setup.parallel)
