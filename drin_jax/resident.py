"""A feature store's tables on the device, and batches of graphs looked up there, inside `jit`.

A batch is then a handful of row numbers: nothing else crosses to the device while training, and
several runs read one copy. The arrays are bit for bit those of `data_pipeline.graphs`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from data_pipeline import schema, system_features
from data_pipeline.schema import DataError
from data_pipeline.store import Store
from drin_jax.types import UserError

Tables = dict[str, jax.Array]

VERTEX = ("text", "image", "has_text", "has_image")
SPLIT = ("mention", "candidates", "edges", "gold")
GOLD_SLOT = ("gold_entity", "gold_edges")
SHARE_OF_FREE = 0.8  # of the device's free memory that tables may take


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
    ) -> "DeviceTables":
        """Upload a split's tables.

        Args:
            store, split, r, gold_slot, needs: as in `data_pipeline.graphs.GraphTables`.
            like: tables of another split of the same store and with the same needs, whose shared
                part is used again.

        Raises:
            DataError: the split is unknown or empty, or the store holds fewer candidates than r or
                lacks what is needed.
            UserError: the tables do not fit into the device's free memory.
        """
        store.check_split(split)
        if not 0 <= r <= store.sizes["r"]:
            raise DataError(
                f"graph.r is {r}, but {store.path} holds {store.sizes['r']} candidates of a mention"
            )
        r = r or store.sizes["r"]
        system_features.check(store, needs)
        needed = cls.bytes(
            store, [split], r=r, gold_slot=gold_slot, needs=needs, shared=like is None
        )
        check_fits(needed)
        shared = like.shared if like else _upload(_shared(store, needs))
        longest = system_features.longest(store) if "tokens" in needs else 0
        own = _upload(_own(store, split, r, gold_slot))
        return cls(shared, own, r, gold_slot, tuple(needs), longest)

    @staticmethod
    def bytes(
        store: Store,
        splits: Iterable[str],
        *,
        r: int = 0,
        gold_slot: bool = False,
        needs: Collection[str] = (),
        shared: bool = True,
    ) -> int:
        """Device memory in bytes that the tables of these splits take; `shared`: with those of
        entities and mentions."""
        r = r or store.sizes["r"]
        tables = [_own(store, split, r, gold_slot) for split in splits]
        tables += [_shared(store, needs)] * shared
        wide = (array for table in tables for array in table.values())
        return sum(array.size * min(array.itemsize, 4) for array in wide)

    @property
    def mentions(self) -> int:
        """Mentions of the split."""
        return self.split["mention"].shape[0]

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
            features = self.shared[f"{side}_{kind}"][rows]
            out[f"{side}_{kind}"] = jnp.where(has[..., None], features, 0)
            out[f"{side}_has_{kind}"] = has
        return out

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
    """Free memory of the first device, in bytes; on a CPU that of the machine."""
    device = jax.local_devices()[0]
    stats: Mapping[str, Any] = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = dict(line.split(":") for line in lines)["MemAvailable"]
        return 1024 * int(kilobytes.split()[0])
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


def _upload(arrays: Mapping[str, np.ndarray]) -> Tables:
    # A copy first: on a CPU the device may otherwise read the store's file through its memory map.
    return {name: jnp.asarray(np.array(array)) for name, array in arrays.items()}
