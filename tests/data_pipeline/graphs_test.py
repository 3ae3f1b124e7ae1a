"""Batches whose every number is worked out by hand."""

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.loader import GraphTables
from data_pipeline.schema import GraphSpec
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from tests.support.fixtures import write_tables


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three entities, two training mentions, three candidates, widths 1: every number is known.

    Entity e has text 10 + e and image 20 + e; entity 1 has no image, entity 2 no text. Mention m
    has text 1 + m and image 5 + m; mention 0 has no image. Row 0 of train is mention 1, row 1
    mention 0.
    """
    path = tmp_path_factory.mktemp("by_hand") / "store"
    writer = StoreWriter(path, {})
    f4, i4 = np.float32, np.int32
    arrays = {
        "entity_text": np.array([[10], [11], [12]], f4),
        "entity_image": np.array([[20], [21], [22]], f4),
        "entity_has_text": np.array([True, True, False]),
        "entity_has_image": np.array([True, False, True]),
        "mention_text": np.array([[1], [2]], f4),
        "mention_image": np.array([[5], [6]], f4),
        "mention_has_text": np.array([True, True]),
        "mention_has_image": np.array([False, True]),
        "train_mention": np.array([1, 0], i4),
        "train_candidates": np.array([[2, 0, 1], [1, schema.PADDING, 0]], i4),
        "train_retrieval_score": np.zeros((2, 3), f4),
        "train_gold": np.array([2, schema.NOT_RETRIEVED], i4),
        "train_gold_entity": np.array([1, schema.NIL], i4),
        "train_edges": np.arange(24, dtype=f4).reshape(2, 4, 3),
        "train_gold_edges": np.arange(100, 108, dtype=f4).reshape(2, 4),
        "train_groups": np.zeros(2, np.uint32),
    }
    for table in ("objects", "clip_text", "clip_image"):  # a batch does not hold them
        arrays |= {
            f"entity_{table}": np.zeros((3, 0), f4),
            f"mention_{table}": np.zeros((2, 0), f4),
        }
    for split in ("valid", "test"):
        for name, (shape, dtype) in schema.SPLIT_ARRAYS.items():
            sizes = {"N": 0, "r": 3, "4": 4}
            arrays[f"{split}_{name}"] = np.zeros([sizes[s] for s in shape.split()], dtype)
    strings = {table: ["a", "b", "c"] for table in ("entity_id", "entity_name")}
    strings |= {table: ["a", "b"] for table in schema.STRING_TABLES}
    write_tables(writer, arrays, strings)
    writer.finish("by hand", [], {})
    return Store.open(path)


def test_a_batch_by_hand(by_hand: Store) -> None:
    batch = GraphTables(by_hand, "train").batch(np.array([0, 1, -1]))
    expected = {
        "mask": [True, True, False],
        "gold": [2, -1, -1],
        "mention_text": [[2], [1], [0]],
        "mention_image": [[6], [0], [0]],
        "mention_has_text": [True, True, False],
        "mention_has_image": [True, False, False],
        "candidate_mask": [[True, True, True], [True, False, True], [False] * 3],
        "entity_text": [[[0], [10], [11]], [[11], [0], [10]], [[0], [0], [0]]],
        "entity_image": [[[22], [20], [0]], [[0], [0], [20]], [[0], [0], [0]]],
        "entity_has_text": [[False, True, True], [True, False, True], [False] * 3],
        "entity_has_image": [[True, True, False], [False, False, True], [False] * 3],
        "edges": [
            [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]],
            [[12, 0, 14], [15, 0, 17], [18, 0, 20], [21, 0, 23]],  # slot 1 is padding
            [[0, 0, 0]] * 4,
        ],
    }
    assert batch.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values, err_msg=name)


def test_the_first_r_candidates_lose_the_gold_behind_them(by_hand: Store) -> None:
    batch = GraphTables(by_hand, "train", GraphSpec(r=2)).batch(np.array([0, 1]))
    assert batch["gold"].tolist() == [-1, -1]  # row 0 has its gold in slot 2
    assert batch["entity_text"][:, :, 0].tolist() == [[0, 10], [11, 0]]
    assert batch["edges"][0].tolist() == [[0, 1], [3, 4], [6, 7], [9, 10]]


def test_the_gold_slot_by_hand(by_hand: Store) -> None:
    tables = GraphTables(by_hand, "train", GraphSpec(r=2, gold_slot=True))
    assert tables.spec.slots == 3
    batch = tables.batch(np.array([0, 1, -1]))
    assert batch["gold"].tolist() == [-1, -1, -1]  # of the first two slots
    # Row 0: entity 1 is appended; row 1 is NIL, and row 2 no mention: padding.
    assert batch["candidate_mask"].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert batch["entity_text"][:, :, 0].tolist() == [[0, 10, 11], [11, 0, 0], [0, 0, 0]]
    assert batch["entity_has_image"][:, 2].tolist() == [False, False, False]  # entity 1 has none
    assert batch["edges"][0].tolist() == [[0, 1, 100], [3, 4, 101], [6, 7, 102], [9, 10, 103]]
    assert batch["edges"][1, :, 2].tolist() == [0, 0, 0, 0]
    whole = GraphTables(by_hand, "train", GraphSpec(gold_slot=True)).batch(np.array([0]))
    assert whole["gold"].tolist() == [2]  # the retrieved one, not slot 3
    assert whole["entity_text"][0, :, 0].tolist() == [0, 10, 11, 11]


def test_a_knowledge_base_of_several_segments_gives_the_same(by_hand: Store) -> None:
    store = Store.open(by_hand.path)
    whole = GraphTables(store, "train").batch(np.array([1, 0]))
    parts = {name: [part[:1], part[1:]] for name, (part,) in store.kb._parts.items()}
    store.kb._parts = parts
    found = GraphTables(store, "train").batch(np.array([1, 0]))
    assert found.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array)
