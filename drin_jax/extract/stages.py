"""What the encoders have to see of a corpus: everything unique, in stages of shards."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.pictures import precomputed
from data_pipeline.schema import Corpus, Span
from drin_jax.extract.encoder_settings import SIDES, EncoderSettings
from drin_jax.extract.texts import entity_text, mention_text

ROWS = 2048  # texts of a shard, and rows copied at once
PICTURES_PER_SHARD = 256
DETECTED_PER_SHARD = 32  # a detector sees whole pictures, which are held one shard ahead


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One unique picture. `boxes` [k, 4] and `scores` [k] where they were found elsewhere; `keep`
    is how many of them any side of the graph looks at."""

    path: str
    keep: int
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None

    def plain(self) -> list[Any]:
        """As JSON has it; `Picture.from_plain` is the way back."""
        boxes = None if self.boxes is None else self.boxes.tolist()
        scores = None if self.scores is None else self.scores.tolist()
        return [self.path, self.keep, boxes, scores]

    @classmethod
    def from_plain(cls, row: Sequence[Any]) -> "Picture":
        path, keep, boxes, scores = row
        if boxes is None:
            return cls(path, keep)
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return cls(path, keep, found, np.array(scores, np.float32))


def plain_items(items: Sequence[Any]) -> list[Any]:
    """A shard's items as JSON has them."""
    return [item.plain() if isinstance(item, Picture) else item for item in items]


def items_from_plain(kind: str, rows: Sequence[Any]) -> list[Any]:
    """The way back."""
    if kind == "pictures":
        return [Picture.from_plain(row) for row in rows]
    if kind == "clip_texts":
        return list(rows)
    return [(text, tuple(span) if span else None) for text, span in rows]


def objects_table(keep: int) -> str:
    """Name of the table of means over this many objects."""
    return f"objects_{keep}"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One pass of the encoders over `count` items.

    Attributes:
        kind: of `Encoders.encode`.
        item: number -> item, made when it is needed: a million texts are not held at once.
        rows: items of a shard.
        tables: name -> shape of a row and dtype.
    """

    kind: str
    title: str
    unit: str
    count: int
    item: Callable[[int], Any]
    rows: int
    tables: Mapping[str, tuple[tuple[int, ...], str]]

    @property
    def shards(self) -> int:
        return -(-self.count // self.rows)

    def items(self, shard: int) -> list[Any]:
        """The items of one shard."""
        begin = shard * self.rows
        return [self.item(i) for i in range(begin, min(begin + self.rows, self.count))]


class Stages:
    """The stages of a corpus.

    Args:
        width: encoder ("text", "clip", "image") -> that of its vectors.

    Attributes:
        sides: the items of each side.
        sources: file -> SHA-256 of every file that was read, boxes too.
    """

    def __init__(
        self,
        config: ConfigDict,
        corpus: Corpus,
        settings: EncoderSettings,
        width: Callable[[str], int],
    ):
        self.config, self.corpus, self.settings, self.width = config, corpus, settings, width
        self.sources = dict(corpus.sources)
        self.sides: dict[str, Sequence[Any]] = {
            "entity": corpus.entities,
            "mention": corpus.mentions,
        }
        self._boxes = {}
        if settings.objects and not settings.detects:
            path = Path(config.data.root) / settings.objects
            self._boxes = precomputed.load_boxes(path, self.sources)

    def _text(self, row: int, side: str, prefix: str = "") -> tuple[str, Span]:
        template, item = self.config.text[f"{prefix}{side}"], self.sides[side][row]
        if side == "mention":
            return mention_text(template, item)
        return entity_text(template, item), None

    def all(self) -> list[Stage]:
        """Everything that an encoder has to see."""
        found = self.texts()
        if self.config.encoders.clip:
            found.append(self.clip_texts()[0])
        if self.config.encoders.image:
            found.append(self.pictures()[0])
        return found

    def texts(self) -> list[Stage]:
        """BERT over both sides."""
        width = self.width("text")
        return [
            Stage(
                kind=f"{side}_texts",
                title=f"encoding {side} texts",
                unit="texts",
                count=len(items),
                item=functools.partial(self._text, side=side),
                rows=ROWS,
                tables={
                    table: ((width,), "float32")
                    for table in self.settings.poolings
                    if table.startswith(side)
                },
            )
            for side, items in self.sides.items()
        ]

    def clip_texts(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """CLIP over the unique texts of both sides, and each side's rows in them (-1: blank)."""
        texts, rows = self._unique(
            lambda row, side: self._text(row, side, "clip_")[0].strip() or None
        )
        stage = Stage(
            kind="clip_texts",
            title="encoding texts with CLIP",
            unit="texts",
            count=len(texts),
            item=texts.__getitem__,
            rows=ROWS,
            tables={"clip_text": ((self.width("clip"),), "float32")},
        )
        return stage, rows

    def _unique(
        self, key: Callable[[int, str], str | None]
    ) -> tuple[list[str], dict[str, np.ndarray]]:
        """The distinct keys of both sides in order of appearance, and the number [n] of each of a
        side's items, -1: None."""
        number: dict[str, int] = {}
        rows = {}
        for side, items in self.sides.items():
            keys = [key(row, side) for row in range(len(items))]
            numbers = [-1 if k is None else number.setdefault(k, len(number)) for k in keys]
            rows[side] = np.array(numbers, np.int64)
        return list(number), rows

    def pictures(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """The unique pictures of both sides, and each side's rows in them (-1: none)."""
        paths, own = self._unique(lambda row, side: self.sides[side][row].image)
        settings = self.settings
        keep = np.zeros(len(paths), np.int64)
        for side in SIDES:
            seen = own[side][own[side] >= 0]
            keep[seen] = np.maximum(keep[seen], settings.keep[side])

        def picture(row: int) -> Picture:
            found, scores = self._boxes.get(paths[row], (None, None))
            if found is not None and scores is not None:
                found, scores = found[: keep[row]], scores[: keep[row]]
            return Picture(paths[row], int(keep[row]), found, scores)

        width = ((self.width("image"),), "float32")
        tables = {"status": ((), "uint8"), "image": width}
        if settings.clip:
            tables["clip_image"] = ((self.width("clip"),), "float32")
        if settings.objects:
            tables |= {objects_table(keep): width for keep in settings.keep.values()}
        stage = Stage(
            kind="pictures",
            title="encoding pictures",
            unit="pictures",
            count=len(paths),
            item=picture,
            rows=DETECTED_PER_SHARD if settings.detects else PICTURES_PER_SHARD,
            tables=tables,
        )
        return stage, own
