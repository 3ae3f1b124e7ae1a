"""Training steps of DRIN over random tables of any size, without a store on disk."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from data_pipeline.loader import TrainOrder
from drin_jax.dispatch import ResidentSteps
from drin_jax.models.drin import DRIN
from drin_jax.parallel import DataParallel
from drin_jax.resident import DeviceTables, Layout
from drin_jax.train_step import TrainState, create_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a run's time and memory depend on; the defaults are WikiDiverse's at the paper's size.

    `table_dtype` is that of the features in the tables, `dtype` that of the arithmetic.
    """

    mentions: int = 13_205
    r: int = 10
    batch: int = 64
    entities: int = 40_000
    layers: int = 2
    text: int = 768
    image: int = 2048
    width: int = 768
    form: str = "upstream"
    dtype: str = "float32"
    table_dtype: str = "float32"


def random_tables(shape: Shape, parallel: DataParallel, seed: int = 0) -> DeviceTables:
    """Tables in which every vertex is there and candidates are drawn from all entities."""
    rng = np.random.default_rng(seed)
    n, r, e = shape.mentions, shape.r, shape.entities
    shared: dict[str, np.ndarray] = {}
    for side, rows in (("entity", e), ("mention", n)):
        for kind, width in (("text", shape.text), ("image", shape.image)):
            shared[f"{side}_{kind}"] = rng.standard_normal((rows, width), dtype=np.float32)
            shared[f"{side}_has_{kind}"] = np.ones(rows, bool)
    own = {
        "mention": np.arange(n, dtype=np.int32),
        "candidates": rng.integers(0, e, (n, r), dtype=np.int32),
        "edges": np.tanh(rng.standard_normal((n, 4, r), dtype=np.float32)),
        "gold": rng.integers(0, r, n, dtype=np.int32),
    }
    layout = Layout(shape.table_dtype, parallel)
    return DeviceTables(layout.upload(shared), layout.upload(own), r, False, (), 0)


class SyntheticRun:
    """A run's state and its resident steps.

    Args:
        most: steps in a dispatch, at most.
    """

    def __init__(self, shape: Shape, parallel: DataParallel | None = None, most: int = 20):
        parallel = parallel or DataParallel()
        self.tables = random_tables(shape, parallel)
        model = DRIN(
            shape.text,
            shape.image,
            width=shape.width,
            layers=shape.layers,
            form=shape.form,
            dtype=shape.dtype,
            rngs=nnx.Rngs(0),
        )
        graphdef, params = nnx.split(model, nnx.Param)
        optimizer = optax.adam(1e-3)
        step = make_train_step(graphdef, optimizer, loss_form="upstream", margin=0.25)
        order = TrainOrder(shape.mentions, batch=shape.batch, seed=0)
        self.steps = ResidentSteps(step, self.tables, order, parallel, most)
        self.state: TrainState = parallel.replicate(create_state(params, optimizer))
        self.step = 0

    def advance(self, steps: int) -> float:
        """Run so many steps; returns their seconds, and checks that the last loss is finite."""
        began, until = time.perf_counter(), self.step + steps
        metrics: dict[str, Any] = {}
        n = 0
        while self.step < until:
            self.state, metrics, n = self.steps(self.state, self.step, until - self.step)
            self.step += n
        jax.block_until_ready(self.state)
        seconds = time.perf_counter() - began
        loss = float(metrics["loss"][n - 1])
        if not np.isfinite(loss):
            raise SystemExit(f"error: the loss of step {self.step} is {loss}")
        return seconds

    def table_bytes(self) -> int:
        """Of the tables on the first device."""
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(self.tables))
