"""A feature store's tables on devices: where they fit, and batches looked up there, inside `jit`.

A batch is then a handful of row numbers: nothing else crosses to the device while training, and
several runs read one copy. The arrays are bit for bit those of `data_pipeline.graphs`, unless the
features are kept in bfloat16. Over several devices every one has all the tables, or, of the wide
ones, an equal part of the rows; batches are then looked up by all of them together.
"""

import dataclasses
import math
import mmap
from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Bool, Int

from data_pipeline import graphs
from data_pipeline.graphs import HostArrays
from data_pipeline.schema import SPLITS, GraphSpec, UserError, check_known
from data_pipeline.store.reader import Store
from drin_jax.parallel import multihost
from drin_jax.parallel.data_parallel import AXIS, DataParallel

PLACES = {
    "device": "on every device, float32",
    "bfloat16": "on every device, features in bfloat16",
    "sharded": "features spread over the devices, float32",
    "host": "read from the store, ahead of each step",
}
# Tables of the features: those that are wide, may be halved, and may be spread over devices.
FEATURES = tuple(f"{side}_{kind}" for side in ("entity", "mention") for kind in ("text", "image"))
SHARE_OF_FREE = 0.8  # of the device's free memory that tables may take
CHUNK_BYTES = 1 << 24  # read of a file at once
ALIGNMENT = 64  # in bytes, of what a CPU device takes over instead of copying it


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a run's tables lie.

    Args:
        kind: one of PLACES. Where tables are "sharded", batches can only be looked up inside
            `DataParallel`'s shard_map. In bfloat16 or not, batches are float32.
        parallel: the devices; None: the first one alone.
        needed, free: bytes on each device, for the tables and before they are uploaded.
    """

    kind: str = "device"
    parallel: DataParallel | None = None
    needed: int = 0
    free: int = 0

    @property
    def _shares(self) -> int:
        """Devices that share the features' rows."""
        return self.parallel.size if self.parallel and self.kind == "sharded" else 1

    def describe(self) -> str:
        """One line for the user."""
        numbers = f"{self.needed / 1e9:.2f} GB of {self.free / 1e9:.2f} GB free"
        if self.kind == "host":
            numbers = f"on a device they would take {numbers}"
        return f"tables {PLACES[self.kind]}: {numbers}"

    def partition(self, name: str) -> PartitionSpec:
        """Over which axis the table of this name is split."""
        spread = self.kind == "sharded" and name in FEATURES
        return PartitionSpec(AXIS) if spread else PartitionSpec()

    def bytes(self, name: str, array: np.ndarray) -> int:
        """Memory in bytes that a table takes on each device."""
        rows = -(-len(array) // self._shares) if name in FEATURES else len(array)
        return rows * math.prod(array.shape[1:]) * self._dtype(name, array).itemsize

    def upload(self, name: str, array: np.ndarray) -> jax.Array:
        """A table on the devices. Each process reads only its devices' rows, one part after
        another, so the array may be a file's map."""
        rows = len(array)
        if name in FEATURES:  # what is beyond the array's rows is zero, and never read
            rows = -(-rows // self._shares) * self._shares
        sharding: Any = SingleDeviceSharding(jax.local_devices()[0])
        if self.parallel:
            sharding = NamedSharding(self.parallel.mesh, self.partition(name))

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            own = range(rows)[index[0]]
            out = aligned((len(own), *array.shape[1:]), self._dtype(name, array))
            copy_rows(array, own.start, out)
            return out

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, part)

    def _dtype(self, name: str, array: np.ndarray) -> np.dtype:
        halved = self.kind == "bfloat16" and name in FEATURES
        return np.dtype(jnp.bfloat16) if halved else jax.dtypes.canonicalize_dtype(array.dtype)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a multiple of ALIGNMENT bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def copy_rows(array: np.ndarray, first: int, out: np.ndarray) -> None:
    """Copy the rows from `first` on into `out` [rows, …], as many as both have.

    A whole array that is a file's memory map is read from the file, a few megabytes at a time:
    pages read through a map stay counted to the process until memory is short.
    """
    out = out[: max(len(array) - first, 0)]
    whole = isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)  # not cut from one
    if not (whole and array.flags.c_contiguous and array.size):
        out[:] = array[first : first + len(out)]
        return
    row_bytes = array.itemsize * math.prod(array.shape[1:])
    step = max(1, CHUNK_BYTES // row_bytes)
    assert isinstance(array, np.memmap)
    with open(str(array.filename), "rb", buffering=0) as file:
        file.seek(array.offset + first * row_bytes)
        for at in range(0, len(out), step):
            chunk = out[at : at + step]
            chunk[...] = np.fromfile(file, array.dtype, chunk.size).reshape(chunk.shape)


@flax.struct.dataclass
class DeviceTables:
    """One split's tables on the device. `shared` (entities, mentions) is one copy for all splits.

    Fields: `shared` and `split` map names of arrays, those of `data_pipeline.graphs`, to the
    arrays; the others are static: `longest` is the number of tokens of the longest text, where
    tokens are needed, `spread` whether each device has an equal part of the features' rows.
    """

    shared: dict[str, jax.Array]
    split: dict[str, jax.Array]
    spec: GraphSpec = flax.struct.field(pytree_node=False)
    longest: int = flax.struct.field(pytree_node=False)
    spread: bool = flax.struct.field(pytree_node=False)

    @classmethod
    def of(
        cls,
        store: Store,
        split: str,
        spec: GraphSpec = GraphSpec(),
        *,
        like: "DeviceTables | None" = None,
        placement: Placement = Placement(),
    ) -> "DeviceTables":
        """Upload a split's tables, of which `choose` says whether they fit.

        Args:
            store, split, spec: as in `data_pipeline.loader.GraphTables`.
            like: tables of another split of the same store, with the same needs and placement,
                whose shared part is used again.
            placement: where they go.

        Raises:
            UserError: the split is unknown or empty, or as `Store.fitted`.
        """
        store.check_split(split)
        spec = store.fitted(spec)

        def upload(tables: HostArrays) -> dict[str, jax.Array]:
            return {name: placement.upload(name, array) for name, array in tables.items()}

        shared = like.shared if like else upload(store.shared_tables(spec.needs))
        own, longest = upload(_own(store, split, spec)), store.longest_text(spec.needs)
        return cls(shared, own, spec, longest, placement.kind == "sharded")

    @staticmethod
    def bytes(
        store: Store,
        splits: Iterable[str],
        spec: GraphSpec = GraphSpec(),
        placement: Placement = Placement(),
    ) -> int:
        """Memory in bytes that the tables of entities, mentions and these splits take on each
        device."""
        spec = store.fitted(spec)
        tables = [store.shared_tables(spec.needs)]
        tables += [_own(store, split, spec) for split in splits]
        return sum(placement.bytes(*table) for own in tables for table in own.items())

    @property
    def mentions(self) -> int:
        """Mentions of the split."""
        return self.split["mention"].shape[0]

    def shared_part(self) -> "DeviceTables":
        """What is shared alone, for `of`'s `like`: it keeps no split's tables alive."""
        return self.replace(split={})  # type: ignore[attr-defined,no-any-return]

    def partitions(self) -> "DeviceTables":
        """The same tree with each table's PartitionSpec, for `shard_map`."""
        partition = Placement("sharded" if self.spread else "device").partition
        return self.replace(  # type: ignore[attr-defined,no-any-return]
            shared={name: partition(name) for name in self.shared},
            split={name: partition(name) for name in self.split},
        )

    def batch(self, rows: Int[Array, " b"]) -> dict[str, jax.Array]:
        """The batch of these rows of the split, as `graphs.look_up` gives it; below 0: padding."""
        return graphs.look_up(jnp, self._fetch, rows, self.spec, self.longest)

    def _fetch(self, name: str, rows: Int[Array, "*b"], there: Bool[Array, "*b"]) -> Array:
        table = self.split[name] if name in self.split else self.shared[name]
        spread = self.spread and name in FEATURES
        found = _of_all(table, rows) if spread else jnp.take(table, rows, 0, mode="clip")
        if name in FEATURES:
            found = found.astype(jnp.float32)
        there = there.reshape(*there.shape, *(1,) * (found.ndim - there.ndim))
        return jnp.where(there, found, jnp.zeros((), found.dtype))


def _of_all(table: Array, rows: Int[Array, "*b"]) -> Array:
    """Rows of a table that is spread: every device looks up what it has of what all of them want,
    and each gets the sum of its own, of which one term is not zero."""
    at = jax.lax.all_gather(rows, AXIS) - jax.lax.axis_index(AXIS) * table.shape[0]
    here = (at >= 0) & (at < table.shape[0])
    found = jnp.where(here[..., None], jnp.take(table, at, 0, mode="clip"), 0)
    return jax.lax.psum_scatter(found, AXIS)


def _own(store: Store, split: str, spec: GraphSpec) -> HostArrays:
    """The split's arrays, still on disk, with the first r candidates."""
    own = store.split_tables(split, spec)
    for name, axis in (("candidates", 1), ("evidence", 1), ("edges", 2)):
        if name in own and own[name].shape[axis] > spec.r:  # one that is whole is read as a file
            own[name] = own[name][(slice(None),) * axis + (slice(spec.r),)]
    return own


def choose(kind: str, store: Store, parallel: DataParallel, spec: GraphSpec) -> Placement:
    """The placement of this kind, or for "auto" the first that fits, in the order of PLACES.

    Raises:
        UserError: an unknown kind, one that `parallel.impl` has not, or tables that do not fit.
    """
    check_known("data.tables", kind, ("auto", *PLACES))
    if parallel.impl == "pmap" and kind not in ("auto", "host"):
        raise UserError(
            f"data.tables is {kind!r}, but parallel.impl 'pmap' reads batches from the store; "
            "use data.tables='host' or parallel.impl='shard_map'"
        )
    free = min(multihost.gather(free_bytes()))  # the least of all processes
    needed = {
        name: DeviceTables.bytes(store, SPLITS, spec, Placement(name, parallel)) for name in PLACES
    }
    fits = [name for name in PLACES if name == "host" or needed[name] <= SHARE_OF_FREE * free]
    if kind == "auto":
        kind = "host" if parallel.impl == "pmap" else fits[0]
    if kind not in fits:
        raise UserError(
            f"data.tables is {kind!r}: the tables take {needed[kind] / 1e9:.2f} GB a device, which "
            f"has {free / 1e9:.2f} GB free, of which tables may take {SHARE_OF_FREE:.0%}; use "
            "data.tables='auto', which reads from the store what does not fit, or lower graph.r"
        )
    return Placement(kind, parallel, needed[kind], free)


def free_bytes() -> int:
    """Free memory of the first device, in bytes; CPU devices share that of the machine."""
    device = jax.local_devices()[0]
    stats: Mapping[str, Any] = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = dict(line.split(":") for line in lines)["MemAvailable"]
        return 1024 * int(kilobytes.split()[0]) // jax.local_device_count()
    except (OSError, KeyError, ValueError):  # no Linux: nothing is known, so nothing is refused
        return 1 << 62
