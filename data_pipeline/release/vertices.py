"""The vertex tables of a release's store, reduced shard by shard from its sequences."""

from collections.abc import Callable

import numpy as np

from data_pipeline.release import upstream_features
from data_pipeline.release.entity_rows import CHUNK, Entities, Tables, joined
from data_pipeline.release.inventory import WIKIMEL, Release
from data_pipeline.schema import SPLITS, UserError
from data_pipeline.store import arrays
from data_pipeline.store.writer import StoreWriter

ROWS_PER_SHARD = 1024


def _fill(
    writer: StoreWriter,
    release: Release,
    side: str,
    rows: int,
    read_bytes: int,
    make: Callable[[int, int], Tables],
) -> None:
    """Writes the tables of a side, of `rows` rows, shard by shard, and empty ones of CLIP vectors.

    Args:
        side: "entity" or "mention".
        make: gives the tables' rows from a row up to another.
    """
    widths = {f"{side}_text": "t", f"{side}_image": "v", f"{side}_objects": "o"}
    if side == "entity" and release.dataset == WIKIMEL:
        widths["entity_text_edge"] = "t"
    tables = {
        name: writer.shards(name, (rows, release.sizes[symbol]), "float32", ROWS_PER_SHARD)
        for name, symbol in widths.items()
    }
    title = {"entity": "reducing the entities", "mention": "reducing the mentions"}[side]
    todo = sorted({index for table in tables.values() for index in table.missing()})
    with arrays.watch(title, read_bytes) as advance:
        for index in todo:
            begin, end = index * ROWS_PER_SHARD, min((index + 1) * ROWS_PER_SHARD, rows)
            for name, made in make(begin, end).items():
                if not np.isfinite(made).all():
                    row = begin + int(np.argmin(np.isfinite(made).all(1)))
                    what = name.replace("_", " ")
                    raise UserError(
                        f"release: the {what} number {row} (from 0, all splits in a row) is not "
                        f"finite; copy the features in {release.folder} again"
                    )
                tables[name].write(index, made)
            advance(read_bytes * (end - begin) // rows)
    for table in tables.values():
        table.finish()
    for kind in ("text", "image"):
        writer.write(f"{side}_clip_{kind}", np.zeros((rows, 0), np.float32))


def write(writer: StoreWriter, release: Release, entities: Entities) -> dict[str, np.ndarray]:
    """Writes text, picture and objects of every entity and mention, and which of them there are.

    Returns:
        the flags by name: whether a text's or a picture's vertex is not zero.
    """
    _fill(writer, release, "entity", len(entities.ids), entities.read_bytes, entities.tables)
    step = max(1, CHUNK // release.headers["mention-image-feature_train"].row_bytes)
    counts = {split: release.sizes[f"N_{split}"] for split in SPLITS}

    def mentions(begin: int, end: int) -> Tables:
        parts = []
        for split, first in release.begins.items():
            high = min(end - first, counts[split])
            for at in range(max(begin - first, 0), high, step):
                parts.append(_reduced(release, split, at, min(at + step, high)))
        return joined(parts)

    names = [f"mention-{kind}-feature_{split}" for kind in ("image", "object") for split in SPLITS]
    _fill(writer, release, "mention", sum(counts.values()), release.nbytes(*names), mentions)
    flags = {}
    for side in ("entity", "mention"):
        for kind in ("text", "image"):
            table = writer.array(f"{side}_{kind}")
            steps = range(0, len(table), ROWS_PER_SHARD)
            shards = [table[at : at + ROWS_PER_SHARD].any(1) for at in steps]
            flags[f"{side}_has_{kind}"] = np.concatenate(shards)
    for name, array in flags.items():
        writer.write(name, array)
    return flags


def _reduced(release: Release, split: str, begin: int, end: int) -> Tables:
    def rows(name: str) -> np.ndarray:
        return release.rows(f"{name}_{split}", begin, end)

    tokens = release.mapped(f"mention-text-feature_{split}")[begin:end]
    return {
        "mention_text": upstream_features.span_means(tokens, rows("start-pos"), rows("end-pos")),
        "mention_image": rows("mention-image-feature").mean(1),
        "mention_objects": upstream_features.object_means(
            rows("mention-object-feature"), rows("mention-object-score")
        ),
    }
