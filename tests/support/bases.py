"""Small knowledge bases for tests."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.kb.change import SegmentWriter, open_change
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.schema import Entity

WIDTH = 3  # of the features that `filled` writes


def entity(id: str, name: str = "", description: str = "", *aliases: str) -> Entity:
    """One with these aliases."""
    return Entity(id, name or f"Name of {id}", description, aliases=aliases)


def build(path: Path | str, entities: Sequence[Entity], features: bool = False) -> KnowledgeBase:
    """Generation 1 of the knowledge base in this folder, or at this URL."""
    with open_change(path, filled if features else None) as change:
        return change.build(entities, name="base", made_from={"by": "tests"} if features else {})


def add(
    path: Path | str, entities: Sequence[Entity], features: bool = False, update: bool = False
) -> KnowledgeBase:
    """The same with more."""
    with open_change(path, filled if features else None) as change:
        return change.add(entities, update=update)


def remove(path: Path | str, *ids: str) -> KnowledgeBase:
    """The same without these."""
    with open_change(path) as change:
        return change.remove(ids)


def compact(path: Path | str) -> KnowledgeBase:
    """The same in one segment."""
    with open_change(path) as change:
        return change.compact()


def vector(one: Entity) -> np.ndarray:
    """The features [WIDTH] of an entity: what its id and its pictures are."""
    said = f"{one.id} {one.name} {one.image}".encode()
    return np.array([len(said), sum(said), sum(said[::2])], np.float32)


def filled(segment: SegmentWriter, entities: Sequence[Entity]) -> Mapping[str, Any]:
    """Writes the features of entities, shard by shard."""
    segment.write("entity_has_text", np.ones(len(entities), bool))
    table = segment.shards("entity_text", (len(entities), WIDTH), "float32", 2)
    for shard in table.missing():
        table.write(shard, np.stack([vector(one) for one in entities[2 * shard : 2 * shard + 2]]))
    table.finish()
    return {"encoded": len(entities)}


def content(kb: KnowledgeBase) -> dict[str, Entity]:
    """Id -> entity of the living rows."""
    return {one.id: one for one, alive in zip(kb, kb.alive, strict=True) if alive}


def assert_features(kb: KnowledgeBase) -> None:
    """However they are asked for."""
    table, wanted = kb.array("entity_text"), np.stack([vector(one) for one in kb])
    mask = np.arange(len(kb)) % 2 == 0
    for some in (slice(None), slice(None, None, -1), slice(1, 3), -1, mask, [3, 0, 3], [[1], [2]]):
        chosen = some if isinstance(some, slice | int) else np.array(some)
        np.testing.assert_array_equal(table[chosen], wanted[chosen])
    np.testing.assert_array_equal(np.asarray(table), wanted)
    with pytest.raises(IndexError):
        table[len(kb)]


# What a life of one is made of.
FIRST = [entity(f"Q{i}", f"First {i}", f"word{i}", "alias", f"alias {i}") for i in range(6)]
MORE = [entity("Q2", "Replaced"), entity("R/0", "Second"), entity("R 1", "")]
Steps = list[Callable[[Path | str], KnowledgeBase]]
LIFE: Steps = [
    lambda place: build(place, FIRST, features=True),
    lambda place: remove(place, "Q1", "Q4"),
    lambda place: add(place, MORE, features=True, update=True),
    lambda place: compact(place),
    lambda place: add(place, [entity("Q1", "back", "word9")], features=True),
]
