"""The vertex tables of a release's store, reduced shard by shard from its sequences."""

from collections.abc import Callable

import numpy as np

from data_pipeline.release import upstream_features
from data_pipeline.release.entity_rows import CHUNK, Entities, Tables
from data_pipeline.release.inventory import WIKIMEL, Release
from data_pipeline.schema import SPLITS, UserError
from data_pipeline.store import arrays
from data_pipeline.store.writer import StoreWriter

ROWS_PER_SHARD = 1024


def _fill(
    writer: StoreWriter,
    release: Release,
    title: str,
    shapes: dict[str, tuple[int, int]],
    read_bytes: int,
    make: Callable[[int, int], Tables],
) -> None:
    """Writes tables of the same length shard by shard; `make(begin, end)` gives their rows."""
    tables = {
        name: writer.shards(name, shape, "float32", ROWS_PER_SHARD)
        for name, shape in shapes.items()
    }
    rows = next(iter(shapes.values()))[0]
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


def write_entities(writer: StoreWriter, release: Release, entities: Entities) -> None:
    """Text, picture and objects of every entity; empty tables of CLIP vectors."""
    n, sizes = len(entities), release.sizes
    shapes = {
        "entity_text": (n, sizes["t"]),
        "entity_image": (n, sizes["v"]),
        "entity_objects": (n, sizes["o"]),
    }
    if release.dataset == WIKIMEL:
        shapes["entity_text_edge"] = (n, sizes["t"])
    _fill(writer, release, "reducing the entities", shapes, entities.read_bytes(), entities.tables)
    for kind in ("text", "image"):
        writer.write(f"entity_clip_{kind}", np.zeros((n, 0), np.float32))


def begins(release: Release) -> dict[str, int]:
    """Row of the mention table where each split begins: they follow each other."""
    first, at = {}, 0
    for split in SPLITS:
        first[split] = at
        at += release.sizes[f"N_{split}"]
    return first


def write_mentions(writer: StoreWriter, release: Release) -> None:
    """Text, picture and objects of every mention; empty tables of CLIP vectors."""
    sizes = release.sizes
    n = sum(sizes[f"N_{split}"] for split in SPLITS)
    shapes = {
        "mention_text": (n, sizes["t"]),
        "mention_image": (n, sizes["v"]),
        "mention_objects": (n, sizes["o"]),
    }
    step = max(1, CHUNK // release.headers["mention-image-feature_train"].row_bytes)
    firsts = begins(release)

    def make(begin: int, end: int) -> Tables:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
        for split, first in firsts.items():
            low = max(begin - first, 0)
            high = min(end - first, sizes[f"N_{split}"])
            for at in range(low, high, step):
                for name, rows in _reduced(release, split, at, min(at + step, high)).items():
                    parts[name].append(rows)
        return {name: np.concatenate(rows) for name, rows in parts.items()}

    names = [f"mention-{kind}-feature_{split}" for kind in ("image", "object") for split in SPLITS]
    _fill(writer, release, "reducing the mentions", shapes, release.nbytes(*names), make)
    for kind in ("text", "image"):
        writer.write(f"mention_clip_{kind}", np.zeros((n, 0), np.float32))


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


def write_flags(writer: StoreWriter) -> dict[str, np.ndarray]:
    """Writes and returns which texts and pictures there are: those whose vertex is not zero."""
    flags = {}
    for side in ("entity", "mention"):
        for kind in ("text", "image"):
            table = writer.array(f"{side}_{kind}")
            flags[f"{side}_has_{kind}"] = np.concatenate(
                [
                    table[at : at + ROWS_PER_SHARD].any(1)
                    for at in range(0, len(table), ROWS_PER_SHARD)
                ]
            )
    for name, array in flags.items():
        writer.write(name, array)
    return flags
