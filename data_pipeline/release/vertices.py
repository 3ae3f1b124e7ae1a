"""The entities of a release, each once, and the vertex tables of its store, reduced shard by shard.

WikiMEL keeps its entities once, under their QIDs. WikiDiverse repeats them in the slots of every
mention: there, rows with the same text, picture and features are one entity.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from data_pipeline.arrays import array_file
from data_pipeline.arrays.growing import GrowingFolder
from data_pipeline.release import upstream_features
from data_pipeline.release.inventory import QIDS, WIKIMEL, Release
from data_pipeline.schema import SPLITS, UserError

ROWS_PER_SHARD = 1024
CHUNK = 1 << 26  # bytes of the release held at once
_FEATURES = (
    *("entity-attr-feature", "entity-image-feature"),
    *("entity-object-feature", "entity-object-score"),
)
Tables = dict[str, np.ndarray]
Maker = Callable[[int, int], Tables]  # of the rows from one up to another


def joined(parts: Iterable[Tables]) -> Tables:
    """Tables of the same names, one behind the other."""
    made = list(parts)
    return {name: np.concatenate([part[name] for part in made]) for name in made[0]}


@dataclasses.dataclass
class Entities:
    """The entities of a release; `find_entities` makes one.

    Attributes:
        ids: of each. WIKIMEL: QID. WIKIDIVERSE: a hash of what the row holds.
        names: what is known of each. WIKIMEL: QID again. WIKIDIVERSE: its text.
        slots: split -> [N, S] int32, the entity of each slot.
        weight: [E] float32, sum of the detector scores of its picture.
        counts: what was found on the way.
        tables: makes rows of the store's entity tables, by name.
        read_bytes: of the release, that all `tables` together read.
    """

    ids: list[str]
    names: list[str]
    slots: dict[str, np.ndarray]
    weight: np.ndarray
    counts: dict[str, int]
    tables: Maker
    read_bytes: int


def find_entities(release: Release) -> Entities:
    """Who the entities are.

    Raises:
        UserError: a QID without a row, or a row outside its arrays.
    """
    return _shared(release) if release.dataset == WIKIMEL else _repeated(release)


def _shared(release: Release) -> Entities:
    """WikiMEL's."""
    rows, where = release.sizes["E"], release.folder / QIDS
    by_row: dict[int, str] = {}
    for qid, row in release.qids.items():
        if not 0 <= row < rows:
            raise UserError(
                f"{where}: {qid} points to row {row}, but there are {rows} entities; "
                "use the files of one release"
            )
        by_row.setdefault(row, qid)
    slots = {}
    for split in SPLITS:
        name = f"entity-name-raw_{split}"
        qids = release.rows(name).tolist()
        try:
            own = np.array([release.qids[qid] for qid in qids], np.int32)
        except KeyError as error:
            raise UserError(
                f"{release.path(name)}: row {qids.index(error.args[0])} names {error.args[0]!r}, "
                f"which {QIDS} does not list; use the files of one release"
            ) from None
        slots[split] = own.reshape(-1, release.sizes["S"])

    def some(begin: int, end: int) -> Tables:
        tokens = release.rows("entity-attr-feature", begin, end)
        mask = release.rows("entity-attr-mask", begin, end)
        feature = release.rows("entity-object-feature_all", begin, end)
        score = release.rows("entity-object-score_all", begin, end)
        return {
            "entity_text": upstream_features.inner_means(tokens, mask),
            "entity_text_edge": tokens[:, 0],
            "entity_image": release.rows("entity-image-feature_all", begin, end)[:, 0],
            "entity_objects": upstream_features.object_means(feature, score),
        }

    def tables(begin: int, end: int) -> Tables:
        step = max(1, CHUNK // release.headers["entity-attr-feature"].row_bytes)
        return joined(some(at, min(at + step, end)) for at in range(begin, end, step))

    read = ("entity-attr-feature", "entity-image-feature_all", "entity-object-feature_all")
    ids = [by_row.get(row, f"row {row}") for row in range(rows)]
    weight = release.rows("entity-object-score_all").sum(1)
    counts = {"entities without a QID": rows - len(by_row)}
    return Entities(ids, ids, slots, weight, counts, tables, release.nbytes(*read))


def _repeated(release: Release) -> Entities:
    """WikiDiverse's."""
    seen: dict[bytes, int] = {}
    names: list[str] = []
    first: list[tuple[int, int]] = []  # split and row where each entity comes first
    described: set[bytes] = set()
    slots = {}
    total = sum(release.nbytes(f"{name}_{split}") for name in _FEATURES for split in SPLITS)
    with array_file.watch("finding the entities", total) as bar:
        for index, split in enumerate(SPLITS):
            rows = release.headers[f"entity-attr-feature_{split}"].shape[0]
            row_bytes = release.nbytes(*(f"{name}_{split}" for name in _FEATURES)) // rows
            step = max(1, CHUNK // row_bytes)
            own: list[int] = []
            for begin in range(0, rows, step):
                end = min(begin + step, rows)
                texts = release.rows(f"entity-attr-raw_{split}", begin, end).tolist()
                paths = release.rows(f"entity-image-path_{split}", begin, end).tolist()
                features = [
                    np.ascontiguousarray(release.rows(f"{name}_{split}", begin, end))
                    for name in _FEATURES
                ]
                for i, (text, path) in enumerate(zip(texts, paths, strict=True)):
                    told = hashlib.sha256(f"{text}\0{path}".encode(errors="surrogatepass"))
                    described.add(told.digest())
                    for feature in features:
                        told.update(feature[i])
                    own.append(seen.setdefault(told.digest(), len(seen)))
                    if own[-1] == len(first):
                        first.append((index, begin + i))
                        names.append(text)
                bar.advance((end - begin) * row_bytes)
            slots[split] = np.array(own, np.int32).reshape(-1, release.sizes["S"])

    def tables(begin: int, end: int) -> Tables:
        split_of, row_of = np.array(first[begin:end]).T
        found = joined(  # entities are in the order of splits, few among many: memory-mapped
            {
                name: release.mapped(f"{name}_{split}")[row_of[split_of == index]]
                for name in _FEATURES
            }
            for index, split in enumerate(SPLITS)
        )
        text, image, feature, score = (found[name].astype(np.float32) for name in _FEATURES)
        return {
            "entity_text": text,
            "entity_image": image[:, 0],
            "entity_objects": upstream_features.object_means(feature, score),
        }

    scores = [release.rows(f"entity-object-score_{split}").sum(1) for split in SPLITS]
    weight = np.array([scores[index][row] for index, row in first], np.float32)
    row_bytes = sum(release.headers[f"{name}_{SPLITS[0]}"].row_bytes for name in _FEATURES)
    counts = {"entities with the text and picture of another": len(first) - len(described)}
    ids = [digest[:8].hex() for digest in seen]
    return Entities(ids, names, slots, weight, counts, tables, len(first) * row_bytes)


def _fill(
    writer: GrowingFolder, release: Release, side: str, rows: int, read_bytes: int, make: Maker
) -> None:
    """Writes the tables of a side, of `rows` rows, shard by shard, empty ones of CLIP vectors, and
    the flags: a text or a picture whose vertex is zero is none.

    Args:
        side: "entity" or "mention".
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
    with array_file.watch(title, read_bytes) as bar:
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
            bar.advance(read_bytes * (end - begin) // rows)
    for table in tables.values():
        table.finish()
    for kind in ("text", "image"):
        writer.write(f"{side}_clip_{kind}", np.zeros((rows, 0), np.float32))
        table = writer.array(f"{side}_{kind}")
        steps = range(0, rows, ROWS_PER_SHARD)
        there = [table[at : at + ROWS_PER_SHARD].any(1) for at in steps]
        writer.write(f"{side}_has_{kind}", np.concatenate(there))


def write_entities(segment: GrowingFolder, release: Release, entities: Entities) -> dict[str, Any]:
    """Writes text, picture and objects of every entity, and which of them there are."""
    _fill(segment, release, "entity", len(entities.ids), entities.read_bytes, entities.tables)
    return {}


def write_mentions(writer: GrowingFolder, release: Release) -> None:
    """The same of every mention."""
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
