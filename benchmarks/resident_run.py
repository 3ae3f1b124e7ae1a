"""Our training as `drin_jax.run` builds it, step by step: without checkpoints and evaluation."""

import time

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from data_pipeline.store.reader import Store
from drin_jax.training.batches import ResidentSteps
from drin_jax.training.device_tables import DeviceTables, Placement
from drin_jax.training.loop import DISPATCH_SECONDS
from drin_jax.training.session import make_steps
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state


class ResidentRun:
    """A training on tables on the devices.

    Args:
        store: with a train split.
        config: of the run; `train.log_every` bounds the steps of a dispatch.
        placement: of the tables; None: float32 on every device.
    """

    def __init__(self, store: Store, config: ConfigDict, placement: Placement | None = None):
        setup = set_up(config, store)
        placement = placement or Placement(parallel=setup.parallel)
        tables = DeviceTables.of(store, "train", setup.spec, placement=placement)
        jax.block_until_ready(tables)
        optimizer = optax.adam(config.train.learning_rate)
        self.setup, self.tables = setup, tables
        steps = make_steps(config, store, setup, optimizer, tables)
        assert isinstance(steps, ResidentSteps)
        self.steps = steps
        self.steps_per_epoch = self.steps.order.steps_per_epoch
        self.state = setup.parallel.replicate(create_state(setup.params, optimizer))
        self.step = 0
        self._rate = 0.0

    def compile(self) -> None:
        """Compile the program, or load it, by running none of its steps."""
        self.state, _, _ = self.steps(self.state, self.step, 0)
        jax.block_until_ready(self.state)

    def compiled(self) -> jax.stages.Compiled:
        """The program itself, to ask what it costs; nothing runs."""
        return self.steps.lower(self.state, self.step).compile()

    def train(self, steps: int) -> np.ndarray:
        """So many more steps, in dispatches of about a second; their losses [steps]."""
        losses = []
        end = self.step + steps
        while self.step < end:
            most = min(end - self.step, max(4, int(DISPATCH_SECONDS * self._rate)))
            began = time.perf_counter()
            self.state, metrics, n = self.steps(self.state, self.step, most)
            losses.append(np.asarray(metrics["loss"])[:n])
            self._rate = n / (time.perf_counter() - began)
            self.step += n
        return np.concatenate(losses)
