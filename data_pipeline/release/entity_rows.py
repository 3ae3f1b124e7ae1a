"""The entities of a release, each once: who they are, and which one every slot holds.

WikiMEL keeps them once, under their QIDs. WikiDiverse repeats them in the slots of every mention:
there, rows with the same text, picture and features are one entity.
"""

import abc
import hashlib
from collections.abc import Iterable, Mapping

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


class Entities(abc.ABC):
    """The entities of a release; `find_entities` makes one.

    Attributes:
        ids: of each. WIKIMEL: QID. WIKIDIVERSE: a hash of what the row holds.
        names: what is known of each. WIKIMEL: QID again. WIKIDIVERSE: its text.
        slots: split -> [N, S] int32, the entity of each slot.
        weight: [E] float32, sum of the detector scores of its picture.
        counts: what was found on the way.
    """

    def __init__(self, release: Release):
        self._release = release
        self.ids: list[str] = []
        self.names: list[str] = []
        self.slots: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}
        self.weight = np.empty(0, np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    @abc.abstractmethod
    def tables(self, begin: int, end: int) -> Tables:
        """These rows of the store's entity tables, by name."""

    @abc.abstractmethod
    def read_bytes(self) -> int:
        """Bytes of the release that all `tables` together read."""


def find_entities(release: Release) -> Entities:
    """Who the entities are.

    Raises:
        UserError: a QID without a row, or a row outside its arrays.
    """
    return _Shared(release) if release.dataset == WIKIMEL else _Repeated(release)


class _Shared(Entities):
    """WikiMEL's."""

    def __init__(self, release: Release):
        super().__init__(release)
        rows, where = release.sizes["E"], release.folder / QIDS
        outside = [qid for qid, row in release.qids.items() if not 0 <= row < rows]
        if outside:
            raise UserError(
                f"{where}: {outside[0]} points to row {release.qids[outside[0]]}, but there are "
                f"{rows} entities; use the files of one release"
            )
        by_row: dict[int, str] = {}
        for qid, row in release.qids.items():
            by_row.setdefault(row, qid)
        self.ids = [by_row.get(row, f"row {row}") for row in range(rows)]
        self.names = self.ids
        self.counts["entities without a QID"] = rows - len(by_row)
        for split in SPLITS:
            self.slots[split] = self._rows_of(split).reshape(-1, release.sizes["S"])
        self.weight = release.rows("entity-object-score_all").sum(1)

    def _rows_of(self, split: str) -> np.ndarray:
        name = f"entity-name-raw_{split}"
        qids = self._release.rows(name).tolist()
        try:
            return np.array([self._release.qids[qid] for qid in qids], np.int32)
        except KeyError as error:
            row = qids.index(error.args[0])
            raise UserError(
                f"{self._release.path(name)}: row {row} names {error.args[0]!r}, which {QIDS} does "
                "not list; use the files of one release"
            ) from None

    def tables(self, begin: int, end: int) -> Tables:
        step = max(1, CHUNK // self._release.headers["entity-attr-feature"].row_bytes)
        return joined(self._some(at, min(at + step, end)) for at in range(begin, end, step))

    def _some(self, begin: int, end: int) -> Tables:
        rows = self._release.rows
        tokens = rows("entity-attr-feature", begin, end)
        mask = rows("entity-attr-mask", begin, end)
        feature = rows("entity-object-feature_all", begin, end)
        score = rows("entity-object-score_all", begin, end)
        return {
            "entity_text": upstream_features.inner_means(tokens, mask),
            "entity_text_edge": tokens[:, 0],
            "entity_image": rows("entity-image-feature_all", begin, end)[:, 0],
            "entity_objects": upstream_features.object_means(feature, score),
        }

    def read_bytes(self) -> int:
        names = ("entity-attr-feature", "entity-image-feature_all", "entity-object-feature_all")
        return self._release.nbytes(*names)


class _Repeated(Entities):
    """WikiDiverse's."""

    def __init__(self, release: Release):
        super().__init__(release)
        self._seen: dict[bytes, int] = {}
        self._first: list[tuple[int, int]] = []  # split and row where each entity comes first
        described: set[bytes] = set()
        total = sum(release.nbytes(f"{name}_{s}") for name in _FEATURES for s in SPLITS)
        with arrays.watch("finding the entities", total) as advance:
            for split in SPLITS:
                rows = release.headers[f"entity-attr-feature_{split}"].shape[0]
                row_bytes = release.nbytes(*(f"{name}_{split}" for name in _FEATURES)) // rows
                step = max(1, CHUNK // row_bytes)
                parts = []
                for at in range(0, rows, step):
                    parts.append(self._identify(split, at, min(at + step, rows), described))
                    advance(len(parts[-1]) * row_bytes)
                self.slots[split] = np.concatenate(parts).reshape(-1, release.sizes["S"])
        self.ids = [digest[:8].hex() for digest in self._seen]
        self.counts["entities with the text and picture of another"] = len(self) - len(described)
        del self._seen
        weights = {s: release.rows(f"entity-object-score_{s}").sum(1) for s in SPLITS}
        self.weight = np.array([weights[SPLITS[s]][row] for s, row in self._first], np.float32)

    def _identify(self, split: str, begin: int, end: int, described: set[bytes]) -> np.ndarray:
        rows = self._release.rows
        texts = rows(f"entity-attr-raw_{split}", begin, end).tolist()
        paths = rows(f"entity-image-path_{split}", begin, end).tolist()
        features = [
            np.ascontiguousarray(rows(f"{name}_{split}", begin, end)).reshape(end - begin, -1)
            for name in _FEATURES
        ]
        out = np.empty(end - begin, np.int32)
        for i, (text, path) in enumerate(zip(texts, paths, strict=True)):
            told = hashlib.sha256(f"{text}\0{path}".encode(errors="surrogatepass"))
            described.add(told.digest())
            for feature in features:
                told.update(feature[i])
            entity = self._seen.setdefault(told.digest(), len(self._seen))
            if entity == len(self._first):
                self._first.append((SPLITS.index(split), begin + i))
                self.names.append(text)
            out[i] = entity
        return out

    def tables(self, begin: int, end: int) -> Tables:
        text, image, feature, score = map(self._gather(begin, end).__getitem__, _FEATURES)
        return {
            "entity_text": text,
            "entity_image": image[:, 0],
            "entity_objects": upstream_features.object_means(feature, score),
        }

    def _gather(self, begin: int, end: int) -> Mapping[str, np.ndarray]:
        """The release's rows of these entities. They are few among many: memory-mapped."""
        split_of, row_of = np.array(self._first[begin:end]).T
        found = joined(  # entities are in the order of splits
            {
                name: self._release.mapped(f"{name}_{split}")[row_of[split_of == index]]
                for name in _FEATURES
            }
            for index, split in enumerate(SPLITS)
        )
        return {name: table.astype(np.float32) for name, table in found.items()}

    def read_bytes(self) -> int:
        row_bytes = sum(
            self._release.headers[f"{name}_{SPLITS[0]}"].row_bytes for name in _FEATURES
        )
        return len(self) * row_bytes
