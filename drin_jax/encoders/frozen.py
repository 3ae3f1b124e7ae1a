"""A frozen module on all devices: batches of rows in, results out, a few in flight."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipeline.progress import Progress
from data_pipeline.schema import UserError

_IN_FLIGHT = 3  # batches the device may be behind

Batch = tuple[np.ndarray, Any]  # numbers of the rows; arrays of them, padded to a whole batch


def check_arguments(dtype: str, batch: int) -> None:
    """UserError where an encoder was asked for an unknown dtype or an empty batch."""
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"an encoder's dtype is {dtype!r}; use 'float32' or 'bfloat16'")
    if batch < 1:
        raise UserError(f"an encoder's batch is {batch}; use at least 1")


class Frozen:
    """The weights of `model` on every device, and `forward(model, kind, rows)` compiled for them.

    Args:
        dtype: "float32" for true float32 products, else the device's default ones.
        forward: a pytree of arrays whose first axis is that of `rows`, itself an array or a pytree
            of them; compiled once for each `kind` and each shape of `rows`.
        devices: all local devices by default; the rows of a batch are split over them.
    """

    def __init__(
        self,
        model: nnx.Module,
        dtype: str,
        forward: Callable[[Any, Any, Any], Any],
        devices: Sequence[jax.Device] | None,
    ):
        self.devices = list(devices or jax.local_devices())
        mesh = Mesh(np.asarray(self.devices), ("data",))
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        graph, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        # Accelerators multiply float32 with fewer digits unless told not to.
        precision = "highest" if dtype == "float32" else "default"

        def compute(kind: Hashable, state: nnx.State, rows: Any) -> Any:
            with jax.default_matmul_precision(precision):
                return forward(nnx.merge(graph, state), kind, rows)

        self._compute: Any = jax.jit(compute, static_argnums=0)

    def __call__(self, kind: Hashable, rows: Any) -> Any:
        """Starts one batch, whose size is a multiple of the number of devices."""
        return self._compute(kind, self._state, jax.device_put(rows, self._rows))

    def run(self, kind: Hashable, batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, Any]]:
        """(numbers of the rows, results of these rows on the host) of every batch, in order."""
        waiting: deque[tuple[np.ndarray, Any]] = deque()

        def collect() -> tuple[np.ndarray, Any]:
            members, values = waiting.popleft()
            return members, jax.tree.map(lambda x: np.asarray(x)[: len(members)], values)

        for members, rows in batches:
            waiting.append((members, self(kind, rows)))
            if len(waiting) > _IN_FLIGHT:
                yield collect()
        while waiting:
            yield collect()

    def gather(
        self,
        kind: Hashable,
        batches: Iterable[Batch],
        count: int,
        progress: str | None = None,
        unit: str = "rows",
    ) -> Any:
        """The results of rows 0 to `count` in their order, [count, ...] float32 on the host.

        Args:
            batches: at least one; together they hold each row once.
            progress: title of a progress bar; None for none.
        """
        out: Any = None
        with Progress(progress or "", count, unit=unit, loud=progress is not None) as bar:
            for members, values in self.run(kind, batches):
                if out is None:
                    out = jax.tree.map(
                        lambda x: np.zeros((count, *x.shape[1:]), np.float32), values
                    )
                for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(values), strict=True):
                    whole[members] = part
                bar.advance(len(members))
        return out

    def shapes(self, kind: Hashable, rows: Any) -> Any:
        """Shapes and dtypes of the results, without computing them."""
        return jax.eval_shape(partial(self._compute, kind), self._state, rows)

    def compiled(self) -> int:
        """How many (kind, shape) have been compiled."""
        return self._compute._cache_size()
