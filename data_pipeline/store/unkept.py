"""New mentions in memory: written as a store is in the making, read as one that is whole.

What a store holds of its mentions and what a linker computes of a new one come of the same code.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import schema
from data_pipeline.arrays.array_file import Spec
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.store.reader import Store

SPLIT = "test"  # the split that they are


@dataclasses.dataclass
class HeldTable:
    """An array that grows shard by shard, as `ShardTable` does."""

    content: np.ndarray
    rows: int

    def missing(self) -> list[int]:
        """The shards to be written: all of them."""
        return list(range(-(-len(self.content) // self.rows)))

    def write(self, index: int, rows: np.ndarray) -> None:
        """Write a shard."""
        self.content[index * self.rows : index * self.rows + len(rows)] = rows

    def finish(self) -> None:
        """Nothing is left to do."""

    def array(self) -> np.ndarray:
        """The whole array."""
        return self.content


class UnkeptStore(Store):
    """A store that nobody keeps, of one split, SPLIT.

    Args:
        kb: its knowledge base.
        sizes: as `Store.sizes` has them, but for the mentions.
        mentions: how many there are.
        name: of the data set that it might be of.
    """

    def __init__(self, kb: KnowledgeBase, sizes: Mapping[str, int], mentions: int, name: str = ""):
        self.path, self.kb, self.name = Path("new mentions"), kb, name
        self.specs = {}
        self.sizes = {**sizes, "entities": len(kb), "mentions": mentions}
        self.splits = dict.fromkeys(schema.SPLITS, 0) | {SPLIT: mentions}
        self.groups, self.made_from, self.report = [], {}, {}
        self._arrays: dict[str, Any] = {}
        self._strings: dict[str, list[str]] = {}

    def lacks(self, needs: Collection[str]) -> list[str]:
        """Nothing: whoever fills it writes what is needed."""
        return []

    def write(self, name: str, array: np.ndarray) -> None:
        """Hold an array."""
        self._arrays[name] = array
        self.specs[name] = Spec(tuple(array.shape), array.dtype.name, array.nbytes, 0)

    def write_strings(self, name: str, strings: Sequence[str]) -> None:
        """Hold one of `schema.STRING_TABLES`."""
        self._strings[name] = list(strings)

    def shards(
        self, name: str, shape: Sequence[int], dtype: str, rows: int, scratch: bool = False
    ) -> HeldTable:
        """An array that grows; one of `scratch` is not the store's."""
        table = HeldTable(np.zeros(shape, dtype), rows)
        if not scratch:
            self.write(name, table.content)
        return table
