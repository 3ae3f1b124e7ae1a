"""A feature store's tables on the device, and batches of graphs looked up there, inside `jit`.

A batch is then a handful of row numbers: nothing else crosses to the device while training, and
several runs read one copy. The arrays are bit for bit those of `data_pipeline.graphs`, unless the
features are kept in bfloat16. Over several devices every one has all the tables, or, of the wide
ones, an equal part of the rows; batches are then looked up by all of them together.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Int

from data_pipeline import schema, system_features
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.parallel.data_parallel import AXIS, DataParallel

Tables = dict[str, jax.Array]

VERTEX = ("text", "image", "has_text", "has_image")
SPLIT = ("mention", "candidates", "edges", "gold")
GOLD_SLOT = ("gold_entity", "gold_edges")
# Tables of the features: those that are wide, may be halved, and may be spread over devices.
FEATURES = tuple(f"{side}_{kind}" for side in ("entity", "mention") for kind in ("text", "image"))
SHARE_OF_FREE = 0.8  # of the device's free memory that tables may take


@dataclasses.dataclass(frozen=True)
class Layout:
    """How tables lie on devices.

    Args:
        dtype: of the features there; batches are float32 all the same.
        parallel: the devices; None: the first one alone.
        spread: whether each device has an equal part of the features' rows instead of all. Batches
            can then only be looked up inside `DataParallel`'s shard_map.
    """

    dtype: str = "float32"
    parallel: DataParallel | None = None
    spread: bool = False

    @property
    def parts(self) -> int:
        """Devices that share the features' rows."""
        return self.parallel.size if self.parallel and self.spread else 1

    def spec(self, name: str) -> PartitionSpec:
        """Over which axis the table of this name is split."""
        return PartitionSpec(AXIS) if self.spread and name in FEATURES else PartitionSpec()

    def upload(self, arrays: Mapping[str, np.ndarray]) -> Tables:
        """The arrays on the devices."""
        return {name: self._upload(name, array) for name, array in arrays.items()}

    def _upload(self, name: str, array: np.ndarray) -> jax.Array:
        wide = name in FEATURES
        dtype = np.dtype(self.dtype) if wide else None
        if self.parallel is None:
            # A copy: on a CPU the device may otherwise read the store's file through its map.
            return jnp.asarray(np.array(array, dtype))
        # Rows divide over the devices; what is beyond the array's is never read.
        rows = -(-len(array) // self.parts) * self.parts if wide else len(array)
        return self.parallel.put(array, self.spec(name), rows, dtype)

    def bytes(self, name: str, array: np.ndarray) -> int:
        """Memory in bytes that a table takes on each device."""
        itemsize = min(array.itemsize, 4)
        if name not in FEATURES:
            return array.size * itemsize
        itemsize = np.dtype(self.dtype).itemsize
        return -(-len(array) // self.parts) * math.prod(array.shape[1:]) * itemsize


ONE_DEVICE = Layout()


@flax.struct.dataclass
class DeviceTables:
    """One split's tables on the device. `shared` (entities, mentions) is one copy for all splits.

    Fields: `shared` and `split` map names of arrays, those of the store, to the arrays; the others
    are static: `longest` is the number of tokens of the longest text, where tokens are needed.
    """

    shared: Tables
    split: Tables
    r: int = flax.struct.field(pytree_node=False)
    gold_slot: bool = flax.struct.field(pytree_node=False)
    needs: tuple[str, ...] = flax.struct.field(pytree_node=False)
    longest: int = flax.struct.field(pytree_node=False)
    spread: bool = flax.struct.field(pytree_node=False, default=False)

    @classmethod
    def of(
        cls,
        store: Store,
        split: str,
        *,
        r: int = 0,
        gold_slot: bool = False,
        needs: Collection[str] = (),
        like: "DeviceTables | None" = None,
        layout: Layout = ONE_DEVICE,
    ) -> "DeviceTables":
        """Upload a split's tables.

        Args:
            store, split, r, gold_slot, needs: as in `data_pipeline.graphs.GraphTables`.
            like: tables of another split of the same store, with the same needs and layout, whose
                shared part is used again.
            layout: where they go.

        Raises:
            UserError: the split is unknown or empty, or the store holds fewer candidates than r or
                lacks what is needed.
            UserError: the tables do not fit into the device's free memory.
        """
        store.check_split(split)
        if not 0 <= r <= store.sizes["r"]:
            raise UserError(
                f"graph.r is {r}, but {store.path} holds {store.sizes['r']} candidates of a mention"
            )
        r = r or store.sizes["r"]
        system_features.check(store, needs)
        if like is None:  # the rest is small beside it
            splits = [split]
            check_fits(
                cls.bytes(store, splits, r=r, gold_slot=gold_slot, needs=needs, layout=layout)
            )
        shared = like.shared if like else layout.upload(_shared(store, needs))
        longest = system_features.longest(store) if "tokens" in needs else 0
        own = layout.upload(_own(store, split, r, gold_slot))
        return cls(shared, own, r, gold_slot, tuple(needs), longest, layout.spread)

    @staticmethod
    def bytes(
        store: Store,
        splits: Iterable[str],
        *,
        r: int = 0,
        gold_slot: bool = False,
        needs: Collection[str] = (),
        shared: bool = True,
        layout: Layout = ONE_DEVICE,
    ) -> int:
        """Memory in bytes that the tables of these splits take on each device; `shared`: with those
        of entities and mentions."""
        r = r or store.sizes["r"]
        tables = [_own(store, split, r, gold_slot) for split in splits]
        tables += [_shared(store, needs)] * shared
        return sum(layout.bytes(name, array) for table in tables for name, array in table.items())

    @property
    def mentions(self) -> int:
        """Mentions of the split."""
        return self.split["mention"].shape[0]

    def specs(self) -> "DeviceTables":
        """The same tree with each table's PartitionSpec, for `shard_map`."""
        layout = Layout(spread=self.spread)
        return self.replace(  # type: ignore[attr-defined,no-any-return]
            shared={name: layout.spec(name) for name in self.shared},
            split={name: layout.spec(name) for name in self.split},
        )

    def batch(self, rows: Int[Array, " b"]) -> Tables:
        """The batch of these rows of the split, as `GraphTables.batch` makes it; below 0: padding.

        Returns:
            Arrays of the names, shapes and dtypes of `schema.batch_shapes`.
        """
        mask = rows >= 0
        own = {name: table[jnp.maximum(rows, 0)] for name, table in self.split.items()}
        candidates, edges = own["candidates"], own["edges"]
        if self.gold_slot:
            golds = jnp.maximum(own["gold_entity"], schema.PADDING)
            candidates = jnp.concatenate([candidates, golds[:, None]], 1)
            edges = jnp.concatenate([edges, own["gold_edges"][:, :, None]], 2)
        candidate_mask = (candidates != schema.PADDING) & mask[:, None]
        retrieved = mask & (own["gold"] < self.r)
        return {
            **self._needed(own["mention"], mask, candidates, candidate_mask),
            **self._look_up("mention", own["mention"], mask),
            **self._look_up("entity", candidates, candidate_mask),
            "edges": jnp.where(candidate_mask[:, None], edges, 0),
            "candidate_mask": candidate_mask,
            "gold": jnp.where(retrieved, own["gold"], schema.NOT_RETRIEVED),
            "mask": mask,
        }

    def _look_up(self, side: str, rows: Int[Array, "*b"], there: Bool[Array, "*b"]) -> Tables:
        """Features of one side's vertices and whether they exist; zero where they do not."""
        out = {}
        rows = jnp.maximum(rows, 0)
        for kind in ("text", "image"):
            has = self.shared[f"{side}_has_{kind}"][rows] & there
            features = self._features(f"{side}_{kind}", rows).astype(jnp.float32)
            out[f"{side}_{kind}"] = jnp.where(has[..., None], features, 0)
            out[f"{side}_has_{kind}"] = has
        return out

    def _features(self, name: str, rows: Int[Array, "*b"]) -> Array:
        """Rows of a table of features. Where it is spread, every device looks up what it has of
        what all of them want, and each gets the sum of its own, of which one term is not zero."""
        table = self.shared[name]
        if not self.spread:
            return table[rows]
        at = jax.lax.all_gather(rows, AXIS) - jax.lax.axis_index(AXIS) * table.shape[0]
        here = (at >= 0) & (at < table.shape[0])
        found = jnp.where(here[..., None], table[jnp.clip(at, 0, table.shape[0] - 1)], 0)
        return jax.lax.psum_scatter(found, AXIS)

    def _needed(
        self,
        mention: Int[Array, " b"],
        mask: Bool[Array, " b"],
        candidates: Int[Array, "b r"],
        candidate_mask: Bool[Array, "b r"],
    ) -> Tables:
        """What `needs` name, as `data_pipeline.system_features` makes it."""
        out, tables = {}, self.shared
        if "tokens" in self.needs:
            offsets, table = tables["mention_token_offsets"], tables["mention_tokens"]
            at = offsets[mention][:, None] + jnp.arange(self.longest)
            there = (at < offsets[mention + 1][:, None]) & mask[:, None]
            tokens = table[jnp.minimum(at, table.shape[0] - 1)]
            out["mention_tokens"] = jnp.where(there[..., None], tokens, 0)
            out["mention_token_mask"] = there
            out["mention_span"] = jnp.where(mask[:, None], tables["mention_span"][mention], 0)
        if "regions" in self.needs:
            rows = tables["mention_region_row"][mention]
            regions = tables["mention_regions"][jnp.maximum(rows, 0)]
            seen = mask & (rows >= 0)
            out["mention_regions"] = jnp.where(seen[:, None, None], regions, 0)
        if "characters" in self.needs:
            names = tables["entity_characters"][jnp.maximum(candidates, 0)]
            out["entity_characters"] = jnp.where(candidate_mask[..., None], names, 0)
            surface = tables["mention_characters"][mention]
            out["mention_characters"] = jnp.where(mask[:, None], surface, 0)
        return out


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


def check_fits(needed: int) -> None:
    """UserError where `needed` bytes of tables leave too little of the device's memory."""
    free = free_bytes()
    if needed > SHARE_OF_FREE * free:
        raise UserError(
            f"the store's tables take {needed / 1e9:.2f} GB and the device has {free / 1e9:.2f} GB "
            f"free, of which tables may take {SHARE_OF_FREE:.0%}; lower retrieval.r, use a larger "
            "device, or train with drin_jax.main, which reads batches from disk"
        )


def _shared(store: Store, needs: Collection[str]) -> dict[str, np.ndarray]:
    """Arrays of entities and mentions; all but the characters still on disk."""
    names = [f"{side}_{name}" for side in ("entity", "mention") for name in VERTEX]
    names += [name for need in needs for name in schema.NEEDED_ARRAYS[need]]
    tables: dict[str, np.ndarray] = {name: store.array(name) for name in names}
    if "characters" in needs:
        for side, name in (("entity", "entity_name"), ("mention", "mention_surface")):
            tables[f"{side}_characters"] = system_features.characters(store, name)
    return tables


def _own(store: Store, split: str, r: int, gold_slot: bool) -> dict[str, np.ndarray]:
    """The split's arrays, still on disk, with the first r candidates."""
    own: dict[str, np.ndarray] = {
        name: store.array(f"{split}_{name}") for name in SPLIT + GOLD_SLOT * gold_slot
    }
    own["candidates"], own["edges"] = own["candidates"][:, :r], own["edges"][:, :, :r]
    return own
