"""What a config stands for, built: model, devices, tables, steps, and the runs of its seeds."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from data_pipeline import graphs
from data_pipeline.loader import TrainLoader, TrainOrder
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.evaluation.evaluate import Protocol, SplitScorer, SplitView, valid_score
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training import device_tables
from drin_jax.training.batches import HostSteps, ResidentSteps, Steps
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.loop import Trainer
from drin_jax.training.step import create_state, make_train_step

LEAK_WARNING = (
    "warning: graph.gold_slot is 'upstream': the gold is put into every graph. Scores of this run "
    "reproduce a leaking protocol and measure nothing else (docs/protocol.md)."
)


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything of a config but the data that flows through."""

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
    protocol = Protocol(source, spec.r, config.graph.gold_slot)
    return Setup(graphdef, params, parallel, spec, protocol)


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


class Session:
    """What all runs of a config over a store share, whatever their seed: model, devices, the
    tables there, and the compiled programs.

    Args:
        config: of the runs, and of the first one's seed.
        store: an open store.

    Raises:
        UserError: the tables do not fit, or no valid mention has its gold among the candidates.
    """

    def __init__(self, config: ConfigDict, store: Store):
        self.config, self.store = config, store
        self.setup = setup = set_up(config, store)
        self._valid = SplitView.of(store, "valid", setup.spec.r)
        if not np.any(self._valid.gold >= 0):
            raise UserError(
                "no valid mention has its gold among the candidates; nothing selects a model"
            )
        self.placement = device_tables.choose(config.data.tables, store, setup.parallel, setup.spec)
        tables = None
        if self.placement.on_devices:
            tables = DeviceTables.of(store, "train", setup.spec, placement=self.placement)
        self._scorer = SplitScorer(
            setup.graphdef,
            setup.parallel,
            batch=config.eval.batch,
            spec=setup.spec,
            tables=tables,
            placement=self.placement,
        )
        self._optimizer = optax.adam(config.train.learning_rate)
        self._steps = make_steps(config, store, setup, self._optimizer, tables)

    def trainer(self, seed: int, workdir: Path, **options: Any) -> Trainer:
        """A run of this seed in this folder, to begin or to go on; `options` are more of
        `Trainer`'s. Runs of one session compile once, so take them one after another."""
        train = self.config.train
        params, steps = self.setup.params, self._steps
        if seed != self.config.seed:
            config = self.config.copy_and_resolve_references()
            config.seed = seed
            params, steps = set_up(config, self.store).params, steps.of_seed(seed)
        return Trainer(
            state=create_state(params, self._optimizer),
            steps=steps,
            parallel=self.setup.parallel,
            workdir=workdir,
            evaluate=self._valid_score,
            describe_step=lambda step: self._mentions_of(steps.order, step),
            epochs=train.epochs,
            patience=train.patience,
            save_every=train.save_every,
            log_every=train.log_every,
            **options,
        )

    def scores(self, params: Any, split: str) -> np.ndarray:
        """Scores [n, r] of a split's mentions in file order."""
        return self._scorer.scores(params, self.store, split)

    def _valid_score(self, params: Any) -> float:
        return valid_score(self._valid, self.scores(params, "valid"), self.config.eval.select_by)

    def _mentions_of(self, order: TrainOrder, step: int) -> str:
        table, names = self.store.array("train_mention"), self.store.strings("mention_id")
        ids = [names[int(table[row])] for row in order.rows(step)]
        shown = ", ".join(ids[:8]) + (", …" if len(ids) > 8 else "")
        return f"its batch holds the mentions {shown}"
