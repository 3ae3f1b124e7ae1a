"""The steps of a training run as dispatches: programs that the host starts and looks at later.

Two ways with the same batches in the same order. `HostSteps` reads each batch from the store, ahead
by grain, and dispatches one step. `ResidentSteps` has the store's tables on the devices and
dispatches as many steps as the host can wait for; in an epoch nothing goes to the devices but the
program's start, and nothing comes back but what the host asks of the metrics.

Of either, `steps(state, step, most)` starts at least one and at most `most` steps of the epoch that
`step`, the next, is in. It returns the new state (the given one is donated), the metrics of every
step along a first axis (which may go on after them; scalars of a single step), and how many steps
there were. `go_to(step)` lets the next call begin there, and `of_seed` is the same compiled steps
in the order of another seed, from the first on.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int

from data_pipeline.loader import TrainLoader, TrainOrder
from drin_jax.parallel.data_parallel import AXIS, DataParallel
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.step import NEVER, TrainState, TrainStep
from drin_jax.types import Metrics


class HostSteps:
    """A step a dispatch, on batches from the store.

    Args:
        loader: of a seed's batches.
    """

    def __init__(
        self,
        step: TrainStep,
        loader: Callable[[int], TrainLoader],
        seed: int,
        parallel: DataParallel,
    ):
        self._step = parallel.train_step(step)
        self._loader_of, self._parallel = loader, parallel
        self._loader = loader(seed)
        self.order = self._loader.order

    def of_seed(self, seed: int) -> "HostSteps":
        """The same in the order of another seed."""
        other = copy.copy(self)
        other._loader = self._loader_of(seed)
        other.order = other._loader.order
        return other

    def go_to(self, step: int) -> None:
        """Go on from this step."""
        self._loader.go_to(step)

    def __call__(self, state: TrainState, step: int, most: int) -> tuple[TrainState, Metrics, int]:
        """The state after the next steps, `most` at most, their metrics, and how many they were."""
        state, metrics = self._step(state, self._parallel.shard(next(self._loader)))
        return state, metrics, 1


class ResidentSteps:
    """Many steps a dispatch, on batches that are looked up in tables on the devices.

    One program serves the whole run. How many of its steps run is an argument of it, so that any
    cutting of an epoch into dispatches, by time, signals or saving, computes the same bits; the
    price is a loop without a fixed number of turns.

    Args:
        tables: of the split that `order` orders.
        most: steps in a dispatch, at most.
    """

    def __init__(
        self,
        step: TrainStep,
        tables: DeviceTables,
        order: TrainOrder,
        parallel: DataParallel,
        most: int,
    ):
        self.order = order
        self._tables, self._parallel = tables, parallel
        self._most = min(most, order.steps_per_epoch)
        self._program = self._jitted(step)
        self._epoch = NEVER
        self._first: Any = None
        self._rows: Any = None
        # A number that is on the devices already costs no transfer.
        self._on_devices = functools.lru_cache(maxsize=256)(
            lambda number: parallel.replicate(np.int32(number))
        )

    def go_to(self, step: int) -> None:
        """Nothing to prepare: rows are those of the step that a call names."""

    def __call__(self, state: TrainState, step: int, most: int) -> tuple[TrainState, Metrics, int]:
        """The state after the next steps, `most` at most, their metrics, and how many they were."""
        within = self._begin(step)
        n = min(most, self._most, self.order.steps_per_epoch - within)
        state, metrics = self._program(
            self._tables, state, self._rows, self._first, self._on_devices(n)
        )
        return state, metrics, n

    def of_seed(self, seed: int) -> "ResidentSteps":
        """The same in the order of another seed."""
        other, order = copy.copy(self), self.order
        other.order = TrainOrder(
            order.split_size, batch=order.batch, seed=seed, max_mentions=order.mentions
        )
        other._epoch = NEVER
        return other

    def lower(self, state: TrainState, step: int) -> Any:
        """The program as a call at `step` would run it, for a look at what it costs."""
        self._begin(step)
        one = self._on_devices(1)
        return self._program.lower(self._tables, state, self._rows, self._first, one)

    def _begin(self, step: int) -> int:
        """Have the rows of the epoch that `step` is in on the devices; its place in there."""
        epoch, within = divmod(step, self.order.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, order = epoch, self.order
            rows = np.full((order.steps_per_epoch, order.batch), -1, np.int32)  # at padding
            rows.flat[: order.mentions] = order.epoch(epoch)
            self._rows = self._parallel.put(rows, PartitionSpec(None, AXIS))
            self._first = self._on_devices(epoch * order.steps_per_epoch)
        return within

    @property
    def compilations(self) -> int:
        """Programs compiled so far: 1 once a step was taken."""
        return int(self._program._cache_size())

    def _jitted(self, step: TrainStep) -> Any:
        most = self._most

        def steps(
            tables: DeviceTables,
            state: TrainState,
            rows: Int[Array, "steps b"],
            first: Int[Array, ""],
            n: Int[Array, ""],
        ) -> tuple[TrainState, Metrics]:
            """`n` steps from the state's on; `first` is the first step of the epoch."""

            def one(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
                state, metrics = carry
                state, new = step(state, rows[state.step - first], tables.batch)
                return state, jax.tree.map(lambda all_, x: all_.at[i].set(x), metrics, new)

            metrics = {
                "loss": jnp.zeros(most, jnp.float32),
                "grad_norm": jnp.zeros(most, jnp.float32),
                "failed": jnp.zeros(most, jnp.int32),
            }
            return jax.lax.fori_loop(0, n, one, (state, metrics))

        # Parameters and metrics are equal on every device (train_step), which check_vma=False
        # takes as given; see DataParallel.
        everywhere = PartitionSpec()
        sharded = jax.shard_map(
            steps,
            mesh=self._parallel.mesh,
            in_specs=(self._tables.partitions(), everywhere, PartitionSpec(None, AXIS))
            + 2 * (everywhere,),
            out_specs=everywhere,
            check_vma=False,
        )
        return jax.jit(sharded, donate_argnums=1)


Steps = HostSteps | ResidentSteps
