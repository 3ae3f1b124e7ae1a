"""Feature stores of random numbers in any shape, and the two shapes of the published data sets."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import common
from data_pipeline import schema
from data_pipeline.arrays.growing import GrowingFolder
from data_pipeline.schema import Entity
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter

ROWS = 4096  # of a table, made at once


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a data set. `train`, `valid` and `test` are mentions, `text` and `image` widths."""

    entities: int
    train: int
    valid: int
    test: int
    r: int
    text: int = 768
    image: int = 2048


# Mentions as published, WikiMEL's valid by the split that gives 18,092 for training. How many
# entities WikiDiverse's candidates are is not published: 50,000 is a guess.
SHAPES = {
    "wikidiverse": Shape(entities=50_000, train=13_205, valid=1_552, test=1_570, r=10),
    "wikimel": Shape(entities=100_000, train=18_092, valid=2_585, test=5_169, r=100),
}


def write(path: Path, shape: Shape, seed: int = 0) -> Store:
    """Make the store and open it: every vertex there, gold anywhere, candidates drawn evenly."""
    rng = np.random.default_rng(seed)
    mentions = shape.train + shape.valid + shape.test
    with_gold: dict[str, np.ndarray] = {}
    writer = StoreWriter(path, {"synthetic": dataclasses.asdict(shape)})

    def fill(folder: GrowingFolder, side: str, n: int) -> None:
        for kind, width in (("text", shape.text), ("image", shape.image)):
            folder.write(f"{side}_has_{kind}", np.ones(n, bool))
            table = folder.shards(f"{side}_{kind}", (n, width), "float32", ROWS)
            for shard, rows in enumerate(_parts(n)):
                table.write(shard, rng.standard_normal((rows, width), dtype=np.float32))
            table.finish()
        for name in ("objects", "clip_text", "clip_image"):
            folder.write(f"{side}_{name}", np.zeros((n, 0), np.float32))

    def fill_kb(segment: GrowingFolder, entities: Sequence[Entity]) -> Mapping[str, Any]:
        fill(segment, "entity", len(entities))
        return {}

    entities = [Entity(f"Q{i}", f"entity {i}", "") for i in range(shape.entities)]
    writer.build_kb(entities, fill_kb, name="synthetic")
    fill(writer, "mention", mentions)
    first = 0
    for split in schema.SPLITS:
        n = getattr(shape, split)
        candidates = rng.integers(0, shape.entities, (n, shape.r), dtype=np.int32)
        gold = rng.integers(0, shape.r, n, dtype=np.int32)
        own = {
            "mention": np.arange(first, first + n, dtype=np.int32),
            "candidates": candidates,
            "retrieval_score": -np.sort(-rng.random((n, shape.r), np.float32), axis=1),
            "gold": gold,
            "gold_entity": candidates[np.arange(n), gold],
            "edges": rng.uniform(-1, 1, (n, 4, shape.r)).astype(np.float32),
            "gold_edges": np.zeros((n, 4), np.float32),
            "groups": np.zeros(n, np.uint32),
        }
        with_gold |= {f"{split}_{name}": array for name, array in own.items()}
        first += n
    for name, array in with_gold.items():
        writer.write(name, array)
    for name in schema.STRING_TABLES:
        writer.write_strings(name, [f"{name} {i}" for i in range(mentions)])
    writer.finish("synthetic", [schema.GROUP_CLEAN], {"counts": {}})
    return Store.open(path)


def config_for(width: int = 768, batch: int = 64, form: str = "upstream") -> ConfigDict:
    """The paper's hyper-parameters over such a store."""
    config = common.get_config()
    config.model.form = config.loss.form = form
    config.model.width = width
    config.train.batch = batch
    return config


def _parts(n: int) -> Iterator[int]:
    return (min(ROWS, n - first) for first in range(0, n, ROWS))
