"""From rows of a split to a batch: features, edges, masks and gold of each mention's graph.

Written once, over NumPy or JAX arrays: `data_pipeline.loader` reads an open store's tables,
`drin_jax.training.device_tables` those on devices.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from data_pipeline import schema
from data_pipeline.schema import GraphSpec

HostArrays = dict[str, np.ndarray]

# `fetch(name, rows, there)`: these rows of the table of this name, in float32 where it is one of
# floats, and zero where `there` (of the rows' shape) is False: a row there may be any number.
Fetch = Callable[[str, Any, Any], Any]


def look_up(xp: ModuleType, fetch: Fetch, rows: Any, spec: GraphSpec, longest: int) -> dict:
    """The batch of these rows of a split.

    Args:
        xp: numpy or jax.numpy.
        fetch: reads a store's `split_tables` and `shared_tables`.
        rows: [b] integers; below 0: padding.
        spec: of the graphs, as `Store.fitted` gives it.
        longest: tokens of the store's longest mention text, as `Store.longest_text` gives it.

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
