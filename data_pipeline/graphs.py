"""From rows of a split to a batch: features, edges, masks and gold of each mention's graph.

`look_up` is written once, over NumPy or JAX arrays. Here it reads an open store; tables on devices
are those of `drin_jax.training.device_tables`.
"""

import dataclasses
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.reader import Store

HostArrays = dict[str, np.ndarray]

# `fetch(name, rows, there)`: these rows of the table of this name, in float32 where it is one of
# floats, and zero where `there` (of the rows' shape) is False: a row there may be any number.
Fetch = Callable[[str, Any, Any], Any]

VERTEX = ("text", "image", "has_text", "has_image")
SPLIT = ("mention", "candidates", "edges", "gold")
GOLD_SLOT = ("gold_entity", "gold_edges")
NAMES = {"entity": "entity_name", "mention": "mention_surface"}  # that systems read characters of
FLAGS = {
    "tokens": "--config.encoders.tokens=True",
    "regions": "--config.encoders.regions=True",
    "evidence": "--config.model.name=relational",
}


def look_up(xp: ModuleType, fetch: Fetch, rows: Any, spec: GraphSpec, longest: int) -> dict:
    """The batch of these rows of a split.

    Args:
        xp: numpy or jax.numpy.
        fetch: reads `split_tables` and `shared_tables`.
        rows: [b] integers; below 0: padding.
        spec: of the graphs, as `fitted` gives it.
        longest: tokens of the store's longest mention text, as `longest` gives it.

    Returns:
        Arrays of the names, shapes and dtypes of `schema.batch_shapes`, with `spec.slots`
        candidates. Where a mask is False the features and edges are zero.
    """
    mask = rows >= 0
    mention, gold = fetch("mention", rows, mask), fetch("gold", rows, mask)
    candidates = fetch("candidates", rows, mask)[:, : spec.r]
    edges = fetch("edges", rows, mask)[:, :, : spec.r]
    if spec.gold_slot:
        golds = xp.maximum(fetch("gold_entity", rows, mask), schema.PADDING)
        candidates = xp.concatenate([candidates, golds[:, None]], 1)
        edges = xp.concatenate([edges, fetch("gold_edges", rows, mask)[:, :, None]], 2)
    candidate_mask = (candidates != schema.PADDING) & mask[:, None]
    batch = {
        "edges": xp.where(candidate_mask[:, None], edges, 0),
        "candidate_mask": candidate_mask,
        "gold": xp.where(mask & (gold < spec.r), gold, schema.NOT_RETRIEVED),
        "mask": mask,
    }
    vertices = {"mention": (mention, mask), "entity": (candidates, candidate_mask)}
    for side, (row, there) in vertices.items():
        for kind in ("text", "image"):
            has = batch[f"{side}_has_{kind}"] = fetch(f"{side}_has_{kind}", row, there)
            batch[f"{side}_{kind}"] = fetch(f"{side}_{kind}", row, has)
        if "characters" in spec.needs:
            batch[f"{side}_characters"] = fetch(f"{side}_characters", row, there)
    if "tokens" in spec.needs:
        first, end = (fetch("mention_token_offsets", mention + i, mask)[:, None] for i in (0, 1))
        at = first + xp.arange(longest)
        batch["mention_token_mask"] = there = (at < end) & mask[:, None]
        batch["mention_tokens"] = fetch("mention_tokens", at, there)
        batch["mention_span"] = fetch("mention_span", mention, mask)
    if "regions" in spec.needs:
        picture = fetch("mention_region_row", mention, mask)
        seen = mask & (picture != schema.PADDING)
        batch["mention_regions"] = fetch("mention_regions", picture, seen)
    if "evidence" in spec.needs:
        evidence = fetch("evidence", rows, mask)[:, : spec.r].astype(xp.float32)
        if spec.gold_slot:  # of the gold nothing is known but what its graph says
            evidence = xp.pad(evidence, ((0, 0), (0, 1), (0, 0)))
        batch["evidence"] = xp.where(candidate_mask[..., None], evidence, 0)
    return batch


class GraphTables:
    """Looks batches of a split up in an open store.

    Args:
        store: an open store.
        split: "train", "valid" or "test".
        spec: of the graphs.

    Raises:
        UserError: the split is unknown or empty, or as `fitted`.
    """

    def __init__(self, store: Store, split: str, spec: GraphSpec = GraphSpec()):
        self.mentions = store.check_split(split)
        self.spec = fitted(spec, store)
        self._longest = longest(store, spec.needs)
        tables = shared_tables(store, spec.needs) | split_tables(store, split, spec)
        # Plain views: a memmap pays for its class at each look-up.
        self._tables = {
            name: table.view(np.ndarray) if isinstance(table, np.ndarray) else table
            for name, table in tables.items()
        }

    def batch(self, rows: np.ndarray) -> HostArrays:
        """The batch of these rows of the split, C-contiguous, as `look_up` gives it."""
        return look_up(np, self._fetch, rows, self.spec, self._longest)

    def _fetch(self, name: str, rows: np.ndarray, there: np.ndarray) -> np.ndarray:
        table = self._tables[name]
        if not len(table):
            return np.zeros((*rows.shape, *table.shape[1:]), table.dtype)
        if isinstance(table, np.ndarray):
            found = np.take(table, rows, axis=0, mode="clip")
        else:  # of several segments, or in a database
            found = table[np.clip(rows, 0, len(table) - 1)]
        found[~there] = 0
        return found


def fitted(spec: GraphSpec, store: Store) -> GraphSpec:
    """The spec over this store, with `r` what it holds where `r` is 0.

    Raises:
        UserError: the store holds fewer candidates than r, or lacks what is needed, with the
            command that adds it.
    """
    if not 0 <= spec.r <= store.sizes["r"]:
        raise UserError(
            f"graph.r is {spec.r}, but {store.path} holds {store.sizes['r']} candidates of a "
            "mention"
        )
    for need in spec.needs:
        schema.check_known("what a system needs", need, schema.NEEDS)
    if lacking := store.lacks(spec.needs):
        flags = " ".join(FLAGS[need] for need in lacking)
        raise UserError(
            f"{store.path}: holds no {' and no '.join(lacking)} of the mentions, which this system "
            f"needs; python -m drin_jax.extract with the same --config and --workdir and {flags} "
            "adds them"
        )
    return dataclasses.replace(spec, r=spec.r or store.sizes["r"])


def shared_tables(store: Store, needs: Collection[str]) -> HostArrays:
    """Tables of entities and mentions, for all splits; all but the characters still on disk."""
    names = [f"{side}_{name}" for side in NAMES for name in VERTEX]
    names += [name for need in needs if need != "evidence" for name in schema.NEEDED_ARRAYS[need]]
    tables: HostArrays = {name: store.array(name) for name in names}
    if "characters" in needs:
        tables |= {f"{side}_characters": characters(store, name) for side, name in NAMES.items()}
    return tables


def split_tables(store: Store, split: str, spec: GraphSpec) -> HostArrays:
    """The split's own tables, still on disk."""
    names = SPLIT + GOLD_SLOT * spec.gold_slot
    names += tuple(need for need in spec.needs if need == "evidence")
    return {name: store.array(f"{split}_{name}") for name in names}


def longest(store: Store, needs: Collection[str]) -> int:
    """Tokens of the store's longest mention text; 0 where tokens are not needed."""
    if "tokens" not in needs:
        return 0
    return int(np.diff(np.asarray(store.array("mention_token_offsets"))).max(initial=1))


def characters(store: Store, table: str) -> np.ndarray:
    """A table of names as [n, c] int32: UTF-8 bytes plus 1, 0 where there is none. c is the length
    of the longest name on either side, or CHARACTERS where that is less."""
    most = max(max(map(len, _encoded(store, name)), default=0) for name in NAMES.values())
    width = min(max(most, 1), schema.CHARACTERS)
    names = _encoded(store, table)
    joined = b"".join(name[:width].ljust(width, b"\0") for name in names)
    found = np.frombuffer(joined, np.uint8).reshape(-1, width)
    lengths = np.array([len(name) for name in names], np.int64)
    return np.where(np.arange(width) < lengths[:, None], found.astype(np.int32) + 1, 0)


def _encoded(store: Store, table: str) -> list[bytes]:
    return [name.encode() for name in store.strings(table)]
