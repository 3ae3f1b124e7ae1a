"""The mentions of a release: what is known of them, their candidates, golds and initial edges."""

from collections.abc import Iterator, Mapping

import numpy as np

from data_pipeline import schema
from data_pipeline.release import upstream_features
from data_pipeline.release.entity_rows import CHUNK, Entities
from data_pipeline.release.inventory import Release
from data_pipeline.schema import SPLITS, Mention, UserError
from data_pipeline.store.arrays import watch
from data_pipeline.store.writer import StoreWriter

_NO_PATH = ("", "None", "nan")  # a missing path, as NumPy writes it among strings
_KINDS = {"t": "text", "v": "image"}  # of the ends of schema.RELATIONS


def mentions(release: Release, entities: Entities) -> Iterator[Mention]:
    """What is known of the mentions but their features."""
    for split in SPLITS:
        golds = _gold_entities(release, entities, split)
        start, end = (release.rows(f"{side}-pos_{split}") for side in ("start", "end"))
        lost = upstream_features.lost_spans(start, end, release.sizes["L"])
        texts = release.rows(f"mention-text-raw_{split}").tolist()
        paths = release.rows(f"mention-image-path_{split}").tolist()
        for i, (text, path) in enumerate(zip(texts, paths, strict=True)):
            place = None if lost[i] else 0
            yield Mention(
                id=f"{split}/{i}",
                text=text,
                name="",
                start=place,
                end=place,
                split=split,
                sample=f"{split}/{i}",
                gold=entities.ids[golds[i]],
                image=None if path in _NO_PATH else path,
            )


def _gold_entities(release: Release, entities: Entities, split: str) -> np.ndarray:
    """Row of each mention's gold: its candidate's, else the gold slot's (answer r)."""
    slots = entities.slots[split]
    return slots[np.arange(len(slots)), release.rows(f"answer_{split}")]


def write_slots(
    writer: StoreWriter, release: Release, entities: Entities, split: str, begin: int
) -> int:
    """Writes candidates and golds; returns how many gold slots differ from their candidate."""
    slots = entities.slots[split]
    n, r = len(slots), slots.shape[1] - 1
    answer = release.rows(f"answer_{split}").astype(np.int32)
    found = answer < r
    golds = _gold_entities(release, entities, split)
    arrays = {
        "mention": np.arange(begin, begin + n, dtype=np.int32),
        "candidates": slots[:, :r],
        "retrieval_score": np.tile(np.arange(r, 0, -1, dtype=np.float32), (n, 1)),
        "gold": np.where(found, answer, np.int32(schema.NOT_RETRIEVED)),
        "gold_entity": golds,
    }
    for name, array in arrays.items():
        writer.write(f"{split}_{name}", array)
    return int((found & (golds != slots[:, r])).sum())


def write_edges(
    writer: StoreWriter,
    release: Release,
    entities: Entities,
    split: str,
    begin: int,
    has: Mapping[str, np.ndarray],
) -> None:
    """Writes `edges` of the candidates and `gold_edges` of the gold slot.

    Args:
        begin: row of the mention table where the split begins.
        has: the flags of both sides, by name.
    """
    if writer.has(f"{split}_edges") and writer.has(f"{split}_gold_edges"):
        return
    slots = entities.slots[split]
    mention_text, entity_text, objects, entity_objects = (
        writer.array(name).view(np.ndarray)
        for name in ("mention_text", "entity_text_edge", "mention_objects", "entity_objects")
    )
    weight = release.rows(f"mention-object-score_{split}").sum(1)
    eimt, miet = (_finite(release, f"similarity-{way}_{split}") for way in ("eimt", "miet"))
    out = np.empty((len(slots), 4, slots.shape[1]), np.float32)
    row_bytes = 4 * slots.shape[1] * (release.sizes["t"] + release.sizes["o"])
    step = max(1, CHUNK // row_bytes)
    with watch(f"edges of {split}", row_bytes * len(slots)) as advance:
        for at in range(0, len(slots), step):
            part = slice(at, min(at + step, len(slots)))
            own = slice(begin + part.start, begin + part.stop)
            chosen = slots[part]
            made = upstream_features.edges(
                mention_text[own],
                entity_text[chosen],
                (eimt[part], miet[part]),
                objects[own],
                entity_objects[chosen],
                weight[part, None] * entities.weight[chosen],
            )
            for i, relation in enumerate(schema.RELATIONS):
                mine = has[f"mention_has_{_KINDS[relation[0]]}"][own, None]
                made[:, i] *= mine & has[f"entity_has_{_KINDS[relation[1]]}"][chosen]
            out[part] = made
            advance(row_bytes * len(chosen))
    writer.write(f"{split}_edges", out[:, :, :-1])
    writer.write(f"{split}_gold_edges", out[:, :, -1])


def _finite(release: Release, name: str) -> np.ndarray:
    values = release.rows(name)
    if not (finite := np.isfinite(values).all(1)).all():
        raise UserError(
            f"{release.path(name)}: row {int(np.argmin(finite))} is not finite; copy it again"
        )
    return values
