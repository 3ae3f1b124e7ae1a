"""Data parallelism: per-device functions (`training/step.py`, `evaluation/`) over all devices.

A function is written once, for one device's share of a batch, with the axis name `data`; this wraps
it in `jax.shard_map` under `jit`, or in `jax.pmap`. State is replicated, batches are split along
their first axis.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipeline.schema import UserError, check_known

AXIS = "data"
IMPLEMENTATIONS = ("shard_map", "pmap")


class DataParallel:
    """The devices of a run and how functions and arrays are laid over them.

    Args:
        impl: "shard_map" or "pmap".
        devices: local devices to use, 0 for all. Every process uses the same number.
    Raises:
        UserError: unknown `impl`, pmap in several processes, or more devices than there are.
    """

    def __init__(self, impl: str = "shard_map", devices: int = 0):
        check_known("parallel.impl", impl, IMPLEMENTATIONS)
        if impl == "pmap" and jax.process_count() > 1:
            raise UserError(
                "parallel.impl is 'pmap', which keeps state where checkpoints of several processes "
                "cannot take it; use parallel.impl='shard_map'"
            )
        local = jax.local_devices()
        if not 0 <= devices <= len(local):
            raise UserError(
                f"parallel.devices is {devices}, but this process has {len(local)} "
                f"({local[0].platform}); lower it or use 0 for all"
            )
        self.impl = impl
        self.local_devices = local[: devices or len(local)]
        own: dict[int, list[jax.Device]] = {}
        for device in jax.devices():
            own.setdefault(device.process_index, []).append(device)
        everywhere = [device for i in sorted(own) for device in own[i][: len(self.local_devices)]]
        self.mesh = Mesh(np.array(everywhere), (AXIS,))

    @property
    def size(self) -> int:
        """Devices over all processes."""
        return self.mesh.size

    def check_batch(self, batch: int, field: str) -> None:
        """UserError where `batch` mentions cannot be split evenly over the devices."""
        if batch % self.size:
            raise UserError(
                f"{field} is {batch}, which does not divide over {self.size} devices; "
                f"use a multiple of {self.size}"
            )

    def replicate(self, tree: Any) -> Any:
        """A copy of `tree`, which every process has, on every device. Through the host, because a
        device may alias what it is given and the training step donates the result."""
        return jax.tree.map(lambda x: self.put(np.asarray(x), PartitionSpec()), tree)

    def put(self, array: np.ndarray, spec: PartitionSpec) -> jax.Array:
        """A copy of an array that every process has, over all devices by `spec`. By a callback,
        because `device_put` would compare it between the processes."""
        sharding = NamedSharding(self.mesh, spec)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: np.array(array[index], copy=True)
        )

    def shard(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """This process's share of a batch, split over its devices along the first axis."""
        if self.impl == "pmap":
            n = len(self.local_devices)
            return {name: a.reshape(n, a.shape[0] // n, *a.shape[1:]) for name, a in arrays.items()}
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return {
            name: jax.make_array_from_process_local_data(sharding, a) for name, a in arrays.items()
        }

    def train_step(self, step: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], Any]:
        """`step(state, batch) -> (state, metrics)`, both results equal on every device; the given
        state is donated."""
        if self.impl == "pmap":
            return self._pmap(step, out_axes=None, donate_argnums=0)
        return jax.jit(self._shard_map(step, PartitionSpec()), donate_argnums=0)

    def eval_step(self, step: Callable[..., Any], *between: Any) -> Callable[..., Any]:
        """`step(params, *between, batch) -> arrays`, the results joined along their first axis.

        Args:
            between: PartitionSpecs of further arguments; shard_map only.
        """
        if self.impl == "pmap":
            return self._pmap(step)
        return jax.jit(self._shard_map(step, PartitionSpec(AXIS), *between))

    def _pmap(self, step: Callable, **options: Any) -> Callable[..., Any]:
        axes: Any = (None, 0)
        return jax.pmap(step, AXIS, in_axes=axes, devices=self.local_devices, **options)

    def _shard_map(self, step: Callable, out: PartitionSpec, *between: Any) -> Callable:
        # check_vma=False gives collectives the same transposes as under pmap, so that one step with
        # one explicit pmean of the gradients is right in both.
        specs = (PartitionSpec(), *between, PartitionSpec(AXIS))
        return jax.shard_map(step, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)

    def local(self, array: jax.Array) -> np.ndarray:
        """The part of an `eval_step`'s result that this process's share of the batch made."""
        shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        joined = np.concatenate([np.asarray(shard.data) for shard in shards])
        return joined.reshape(-1, *array.shape[2:]) if self.impl == "pmap" else joined
