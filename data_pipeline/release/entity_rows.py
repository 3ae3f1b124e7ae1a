"""The entities of a release, each once: who they are, and which one every slot holds.

WikiMEL keeps them once, under their QIDs. WikiDiverse repeats them in the slots of every mention:
there, rows with the same text, picture and features are one entity.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from data_pipeline.release import upstream_features
from data_pipeline.release.inventory import QIDS, WIKIMEL, Release
from data_pipeline.schema import SPLITS, UserError
from data_pipeline.store import arrays

CHUNK = 1 << 26  # bytes of the release held at once
_FEATURES = (
    *("entity-attr-feature", "entity-image-feature"),
    *("entity-object-feature", "entity-object-score"),
)
Tables = dict[str, np.ndarray]


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
        tables: gives the rows of the store's entity tables from one up to another, by name.
        read_bytes: of the release, that all `tables` together read.
    """

    ids: list[str]
    names: list[str]
    slots: dict[str, np.ndarray]
    weight: np.ndarray
    counts: dict[str, int]
    tables: Callable[[int, int], Tables]
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
    with arrays.watch("finding the entities", total) as advance:
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
                advance((end - begin) * row_bytes)
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
