"""What all runs of a config over a store share, whatever their seed: tables, steps, programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from data_pipeline.loader import TrainLoader, TrainOrder
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import models
from drin_jax.config import flat
from drin_jax.evaluation.evaluate import SplitView, valid_score
from drin_jax.evaluation.scoring import Setup, SplitScorer
from drin_jax.training import device_tables
from drin_jax.training.batches import HostSteps, ResidentSteps, Steps
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.loop import Trainer
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state, make_train_step


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
        average=config.train.average,
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
            process=(jax.process_index(), jax.process_count()),
            **order,
        )

    return HostSteps(step, loader, config.seed, setup.parallel)


def begun(workdir: Path) -> bool:
    """Whether a run has left a checkpoint there to go on from."""
    return any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))


class Session:
    """What all runs of a config over a store share, whatever their seed: model, devices, the
    tables there, and the compiled programs.

    Args:
        config: of the runs, and of the first one's seed.
        store: an open store.
        initial: makes the parameters that a new run starts from, out of its seed's, where the
            config has train.init.

    Attributes:
        scorer: of any split, by the same tables; it keeps those of the train split no longer than
            the session is kept.

    Raises:
        UserError: the tables do not fit, no valid mention has its gold among the candidates, or
            train.init or reranker.text is set where nothing reads it.
    """

    def __init__(
        self, config: ConfigDict, store: Store, initial: Callable[[Any], Any] | None = None
    ):
        for field in ("train.init", "reranker.text"):
            if initial is None and flat(config)[field]:
                raise UserError(f"{field} is read by drin_jax.main alone; leave it empty here")
        self.config, self.store, self._initial = config, store, initial
        self.setup = setup = set_up(config, store)
        self._valid = SplitView.of(store, "valid", setup.spec.r)
        if not np.any(self._valid.gold >= 0):
            raise UserError(
                "no valid mention has its gold among the candidates; nothing selects a model"
            )
        self.placement = device_tables.choose(config.data.tables, store, setup.parallel, setup.spec)
        tables = None
        if self.placement.kind != "host":
            tables = DeviceTables.of(store, "train", setup.spec, placement=self.placement)
        self.scorer = SplitScorer(
            setup, batch=config.eval.batch, tables=tables, placement=self.placement
        )
        self._optimizer = optax.adam(config.train.learning_rate)
        self._random = models.is_random(config.model.name)
        self._steps = make_steps(config, store, setup, self._optimizer, tables)

    def trainer(self, seed: int, workdir: Path, **options: Any) -> Trainer:
        """A run of this seed in this folder, to begin or to go on; `options` are more of
        `Trainer`'s. Runs of one session compile once, so take them one after another."""
        params, steps = self.setup.params, self._steps
        if seed != self.config.seed:
            config = self.config.copy_and_resolve_references()
            config.seed = seed
            params, steps = set_up(config, self.store).params, steps.of_seed(seed)
        if self._initial and self.config.train.init and not begun(workdir):
            params = self._initial(params)
        return Trainer(
            state=create_state(
                params,
                self._optimizer,
                seed if self._random else None,
                averaged=self.config.train.average > 0,
            ),
            steps=steps,
            parallel=self.setup.parallel,
            workdir=workdir,
            evaluate=lambda params: valid_score(
                self._valid, self.scores(params, "valid"), self.config.eval.select_by
            ),
            describe_step=lambda step: self._mentions_of(steps.order, step),
            train=self.config.train,
            store=self.store.fingerprint(),
            **options,
        )

    def scores(self, params: Any, split: str) -> np.ndarray:
        """Scores [n, r] of a split's mentions in file order."""
        return self.scorer.scores(params, self.store, split)

    def _mentions_of(self, order: TrainOrder, step: int) -> str:
        table, names = self.store.array("train_mention"), self.store.strings("mention_id")
        ids = [names[int(table[row])] for row in order.rows(step)]
        shown = ", ".join(ids[:8]) + (", …" if len(ids) > 8 else "")
        return f"its batch holds the mentions {shown}"
