"""The compiled side of `seeds`: tables on the device, an epoch of several runs, their scores."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from data_pipeline.loader import TrainOrder
from data_pipeline.progress import Progress
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.parallel.data_parallel import AXIS
from drin_jax.training import device_tables
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.setup import set_up
from drin_jax.training.step import TrainState, create_state, make_train_step
from drin_jax.types import GraphBatch

DISPATCH_SECONDS = 1.0  # about: then a bar moves, and what a dispatch costs is nothing
FIRST_DISPATCH = 4  # steps, before the rate is known


class SeedsProgram:
    """What runs that differ in the seed share.

    Args:
        config: of the runs; its seed plays no part.
        store: an open store.

    Raises:
        UserError: the tables do not fit into the device's memory, or no valid mention has its gold
            among the candidates.
    """

    def __init__(self, config: ConfigDict, store: Store):
        self.config, self._store = config, store
        self._setup = set_up(config, store)
        upload = partial(DeviceTables.of, store, spec=self._setup.spec)
        self._train = upload("train")
        self._valid = upload("valid", like=self._train)
        self.view = SplitView.of(store, "valid", self._setup.spec.r)
        if not np.any(self.view.gold >= 0):
            raise UserError(
                "no valid mention has its gold among the candidates; nothing selects a model"
            )
        self._optimizer = optax.adam(config.train.learning_rate)
        self._compiled = functools.cache(self._compile)
        self._seconds = 0.0  # of a step, once known
        self.steps_per_epoch = self._order(0).steps_per_epoch

    def fitting(self, together: int) -> int:
        """The largest group of at most `together` runs that fits into the device's memory, by what
        the compiler says that it needs; UserError where a single run does not."""
        while True:
            needed, free = self.bytes(together), device_tables.free_bytes()
            if needed <= free:
                return together
            if together == 1:
                raise UserError(
                    f"a training step takes {needed / 1e9:.2f} GB and the device has "
                    f"{free / 1e9:.2f} GB free; lower train.batch or model.width"
                )
            together = -(-together // 2)

    def bytes(self, together: int) -> int:
        """Device memory in bytes, beside the tables, of so many runs."""
        memory: Any = self._compiled(together).memory_analysis()
        # Results are in the place of arguments; the best parameters lie beside, a third of it.
        return memory.temp_size_in_bytes + memory.output_size_in_bytes * 4 // 3

    def initial(self, seeds: Sequence[int]) -> TrainState:
        """The states before the first step, each leaf with a leading axis of runs."""
        params = []
        for seed in seeds:
            config = self.config.copy_and_resolve_references()
            config.seed = seed
            params.append(set_up(config, self._store).params)
        return jax.jit(self._create)(stack(params))

    def epoch(
        self, states: TrainState, seeds: Sequence[int], epoch: int, progress: Progress
    ) -> tuple[TrainState, Float[np.ndarray, "s steps"]]:
        """The states after an epoch, and its losses; the given states are donated."""
        rows = self._rows(seeds, epoch)
        losses = jnp.zeros(rows.shape[:2], jnp.float32)
        steps = self._compiled(len(seeds))
        first = 0
        while first < self.steps_per_epoch:
            ahead = FIRST_DISPATCH
            if self._seconds:
                ahead = max(1, math.ceil(DISPATCH_SECONDS / self._seconds))
            last = min(first + ahead, self.steps_per_epoch)
            began = time.perf_counter()
            bounds = np.int32(first), np.int32(last)
            states, losses = steps(self._train, states, losses, rows, *bounds)
            jax.block_until_ready(losses)
            self._seconds = (time.perf_counter() - began) / (last - first)
            progress.advance((last - first) * len(seeds))
            first = last
        return states, np.asarray(losses)

    def valid_scores(self, params: Any) -> Float[np.ndarray, "s n r"]:
        """Scores of the valid split with parameters that have a leading axis of runs."""
        return split_scores(self._setup.graphdef, params, self._valid, self.config.eval.batch)

    def _create(self, params: Any) -> TrainState:
        return jax.vmap(partial(create_state, optimizer=self._optimizer))(params)

    def _order(self, seed: int) -> TrainOrder:
        train = self.config.train
        return TrainOrder(
            self._train.mentions, batch=train.batch, seed=seed, max_mentions=train.max_mentions
        )

    def _rows(self, seeds: Sequence[int], epoch: int) -> Int[Array, "s steps b"]:
        """Rows of the train split that an epoch of each run visits, -1 at padding."""
        batch = self.config.train.batch
        out = np.full((len(seeds), self.steps_per_epoch * batch), -1, np.int32)
        for row, seed in zip(out, seeds, strict=True):
            order = self._order(seed)
            row[: order.mentions] = order.epoch(epoch)
        return jnp.asarray(out.reshape(len(seeds), -1, batch))

    def _compile(self, together: int) -> jax.stages.Compiled:
        """`steps(tables, states, losses [s, steps], rows [s, steps, b], first, last) -> states,
        losses`: the steps from `first` to before `last` of an epoch of `together` runs."""
        config, steps = self.config, self.steps_per_epoch
        step = make_train_step(
            self._setup.graphdef,
            self._optimizer,
            loss_form=config.loss.form,
            margin=config.loss.margin,
            gold_slot=self._setup.spec.gold_slot,
        )

        def one_run(tables, state, losses, rows, first, last):  # type: ignore[no-untyped-def]
            def body(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
                state, metrics = step(carry[0], tables.batch(rows[i]))
                return state, carry[1].at[i].set(metrics["loss"])

            return jax.lax.fori_loop(first, last, body, (state, losses))

        # The step's collectives need their axis: here of one device.
        runs = jax.shard_map(
            _over_runs(one_run, together, (None, 0, 0, 0, None, None)),
            mesh=Mesh(np.array(jax.local_devices()[:1]), (AXIS,)),
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        shape = jax.ShapeDtypeStruct
        bound = shape((), jnp.int32)
        states = jax.eval_shape(
            self._create,
            jax.tree.map(lambda x: shape((together, *x.shape), x.dtype), self._setup.params),
        )
        losses = shape((together, steps), jnp.float32)
        rows = shape((together, steps, config.train.batch), jnp.int32)
        jitted = jax.jit(runs, donate_argnums=(1, 2))
        return jitted.lower(self._train, states, losses, rows, bound, bound).compile()


def split_scores(
    graphdef: nnx.GraphDef, params: Any, tables: DeviceTables, batch: int
) -> Float[np.ndarray, "s n r"]:
    """Scores of a split, in file order, in batches of `batch`; `params` of s runs, stacked."""
    rows = np.full(-(-tables.mentions // batch) * batch, -1, np.int32)
    rows[: tables.mentions] = np.arange(tables.mentions)
    out = [
        _score(graphdef, tables.spec.gold_slot, params, _look_up(tables, part))
        for part in rows.reshape(-1, batch)
    ]
    return np.concatenate(jax.device_get(out), 1)[:, : tables.mentions]


@jax.jit
def _look_up(tables: DeviceTables, rows: Int[Array, " b"]) -> dict[str, jax.Array]:
    return tables.batch(rows)


@partial(jax.jit, static_argnums=(0, 1))  # apart from the look-up: one compilation for all splits
def _score(
    graphdef: nnx.GraphDef, gold_slot: bool, params: Any, arrays: Any
) -> Float[Array, "s b r"]:
    def one_run(params: Any) -> Float[Array, "b r"]:
        return nnx.merge(graphdef, params)(GraphBatch.from_host(arrays, gold_slot))[0]

    together = jax.tree.leaves(params)[0].shape[0]
    return _over_runs(one_run, together, (0,))(params)


def _over_runs(function: Callable, together: int, axes: tuple[int | None, ...]) -> Callable:
    """`function` over a leading axis of runs; of a single run without a batched product, which
    would be another and slower one."""
    if together > 1:
        return jax.vmap(function, in_axes=axes)

    def alone(*args: Any) -> Any:
        own = [
            jax.tree.map(lambda x: x[0], arg) if axis == 0 else arg
            for arg, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda x: x[None], function(*own))

    return alone


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, each leaf with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
