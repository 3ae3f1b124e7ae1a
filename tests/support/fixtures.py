"""Small data for tests, and the check of an error line."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.kb.change import SegmentWriter
from data_pipeline.schema import Entity, UserError
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter

TINY_GROUPS = [schema.GROUP_CLEAN, schema.GROUP_UNSEEN, schema.GROUP_NO_SPAN]


def tiny_store(path: str | Path, **options: Any) -> Store:
    """A random but valid store at `path`, opened. Options as in `tiny_arrays`."""
    arrays, strings = tiny_arrays(**options)
    writer = StoreWriter(path, {"fixture": "tiny_store"})
    write_tables(writer, arrays, strings)
    writer.finish("tiny", TINY_GROUPS, {"counts": {"mentions": len(strings["mention_id"])}})
    return Store.open(path)


def write_tables(
    writer: StoreWriter, arrays: Mapping[str, np.ndarray], strings: Mapping[str, list[str]]
) -> None:
    """Everything that a store has, its knowledge base first."""

    def fill(segment: SegmentWriter, _: Sequence[Entity]) -> Mapping[str, Any]:
        for name in schema.ENTITY_ARRAYS.keys() & arrays.keys():
            segment.write(name, arrays[name])
        return {}

    named = zip(strings["entity_id"], strings["entity_name"], strict=True)
    writer.build_kb([Entity(id, name, "") for id, name in named], fill, name="tiny")
    for name in schema.STRING_TABLES:
        if name in strings:
            writer.write_strings(name, strings[name])
    for name in arrays.keys() - schema.ENTITY_ARRAYS.keys():
        writer.write(name, arrays[name])


def tiny_arrays(
    *,
    entities: int = 24,
    mentions: Mapping[str, int] | None = None,
    r: int = 4,
    t: int = 8,
    v: int = 6,
    seed: int = 0,
    without_gold: float = 0.25,
    without_image: float = 0.2,
    without_text: float = 0.0,
    padding: float = 0.1,
    separate_edges: bool = False,
    tokens: bool = False,
    regions: bool = False,
    evidence: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Arrays and tables of strings of a random but valid store.

    Args:
        entities: E, at least r.
        mentions: N of each split; what is not named is empty. None: train 13, valid 6, test 7.
        r, t, v: candidates, text and image width; v = 0 makes a store without pictures.
        without_gold: share of the mentions whose gold is not retrieved, a third of them NIL, a
            third outside the knowledge base.
        without_image, without_text: share of the vertices that lack it.
        padding: share of the candidate slots beyond the first that are padding.
        separate_edges: `*_text_edge` arrays of their own.
        tokens, regions: of the mentions, 3 to 9 tokens and 4 regions.
        evidence: of every candidate.
    """
    rng = np.random.default_rng(seed)
    sizes = {"train": 13, "valid": 6, "test": 7} if mentions is None else dict(mentions)
    sizes = {split: sizes.get(split, 0) for split in schema.SPLITS}
    total = sum(sizes.values())
    arrays: dict[str, np.ndarray] = {}
    for side, n in (("entity", entities), ("mention", total)):
        arrays[f"{side}_text"] = _features(rng, n, t)
        if separate_edges:
            arrays[f"{side}_text_edge"] = _features(rng, n, t)
        arrays[f"{side}_image"] = _features(rng, n, v)
        arrays[f"{side}_has_text"] = rng.random(n) >= without_text
        arrays[f"{side}_has_image"] = (rng.random(n) >= without_image) & (v > 0)
        for name in ("objects", "clip_text", "clip_image"):
            arrays[f"{side}_{name}"] = _features(rng, n, 3 if v else 0)
    if tokens:
        arrays |= _tokens(rng, total, t)
    if regions:
        arrays |= _regions(rng, arrays["mention_has_image"], v)
    strings = {
        "entity_id": [f"Q{i}" for i in range(entities)],
        "entity_name": [f"Entität {i}" for i in range(entities)],
        "mention_id": [f"m{i}" for i in range(total)],
        "mention_surface": [f"mention {i}" for i in range(total)],
    }
    # One number for each relation, mention and entity: candidates and gold read the same table.
    relations = rng.uniform(-1, 1, (len(schema.RELATIONS), total, entities)).astype(np.float32)
    kinds = {"t": "text", "v": "image"}
    for i, ends in enumerate(schema.RELATIONS):
        mine = arrays[f"mention_has_{kinds[ends[0]]}"]
        relations[i] *= mine[:, None] & arrays[f"entity_has_{kinds[ends[1]]}"]
    rows = rng.permutation(total).astype(np.int32)
    for split, n in sizes.items():
        mention, rows = rows[:n], rows[n:]
        own = _split(mention, relations, rng, r, without_gold, padding)
        arrays |= {f"{split}_{name}": array for name, array in own.items()}
        if evidence:
            values = rng.standard_normal((n, r, len(schema.EVIDENCE_COLUMNS)))
            arrays[f"{split}_evidence"] = values.astype(np.float16)
    if evidence:
        arrays["evidence_scale"] = np.ones((2, len(schema.EVIDENCE_COLUMNS)), np.float32)
    return arrays, strings


def _features(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    return rng.standard_normal((n, width)).astype(np.float32)


def _tokens(rng: np.random.Generator, n: int, t: int) -> dict[str, np.ndarray]:
    counts = rng.integers(3, 10, n)
    begin = rng.integers(0, counts - 1)
    end = rng.integers(begin + 1, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return {
        "mention_tokens": _features(rng, int(offsets[-1]), t),
        "mention_token_offsets": offsets.astype(np.int64),
        "mention_span": np.stack([begin, end], 1).astype(np.int32),
    }


def _regions(rng: np.random.Generator, has_image: np.ndarray, v: int) -> dict[str, np.ndarray]:
    unique = max(1, int(has_image.sum()) - 2)  # some mentions share a picture
    row = np.where(has_image, np.cumsum(has_image) % unique, schema.PADDING)
    return {
        "mention_regions": rng.standard_normal((unique, 4, v)).astype(np.float32),
        "mention_region_row": row.astype(np.int32),
    }


def _split(
    mention: np.ndarray,
    relations: np.ndarray,
    rng: np.random.Generator,
    r: int,
    without_gold: float,
    padding: float,
) -> dict[str, np.ndarray]:
    n, entities = len(mention), relations.shape[2]
    order = rng.random((n, entities)).argsort(axis=1)
    candidates = order[:, :r].astype(np.int32)
    pad = rng.random((n, r)) < padding
    pad[:, 0] = False
    candidates[pad] = schema.PADDING
    # The gold takes one of the slots that hold a candidate, by the largest random number there.
    gold = np.where(pad, -1.0, rng.random((n, r))).argmax(axis=1).astype(np.int32)
    gold_entity = candidates[np.arange(n), gold]
    kind = rng.random(n) / without_gold if without_gold else np.ones(n)
    spare = order[:, r] if entities > r else np.full(n, schema.NIL)
    lost = kind < 1
    gold[lost] = schema.NOT_RETRIEVED
    gold_entity[lost] = np.select(
        [kind < 1 / 3, kind < 2 / 3], [schema.NIL, schema.OUTSIDE_KB], spare
    )[lost]

    def edges(chosen: np.ndarray) -> np.ndarray:
        there = relations[:, mention[:, None], np.maximum(chosen, 0)] * (chosen >= 0)
        return np.ascontiguousarray(there.transpose(1, 0, 2), dtype=np.float32)

    scores = -np.sort(-rng.random((n, r)), axis=1) * (candidates >= 0)
    return {
        "mention": mention,
        "candidates": candidates,
        "retrieval_score": scores.astype(np.float32),
        "gold": gold,
        "gold_entity": gold_entity,
        "edges": edges(candidates),
        "gold_edges": edges(gold_entity[:, None])[:, :, 0],
        "groups": rng.integers(0, 1 << len(TINY_GROUPS), n).astype(np.uint32),
    }


def refusal(call: Callable[[], Any]) -> str:
    """The one line with which `call` refuses."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
