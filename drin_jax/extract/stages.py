"""What the encoders have to see of a corpus: everything unique, in stages of shards."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.pictures import precomputed
from data_pipeline.schema import Corpus, Span, UserError
from data_pipeline.store.reader import Store
from data_pipeline.store.split_arrays import distinct, offsets_of
from drin_jax.extract.items import SIDES, Picture, entity_text, mention_text, objects_table

ROWS = 2048  # texts of a shard, and rows copied at once
TOKENS_PER_SHARD = 1 << 15
PICTURES_PER_SHARD = 256
DETECTED_PER_SHARD = 32  # a detector sees whole pictures, which are held one shard ahead
REGIONS_PER_SHARD = 64  # pictures

Tables = dict[str, tuple[tuple[int, ...], str]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One pass of the encoders, over `count` rows of its tables.

    Attributes:
        kind: of `Encoders.encode`.
        rows: of a shard.
        items: the items of some rows, made when they are needed: a million texts are not held at
            once.
        tables: name -> shape of a row and dtype.
    """

    kind: str
    count: int
    rows: int
    items: Callable[[range], list[Any]]
    tables: Tables

    @property
    def shards(self) -> int:
        return -(-self.count // self.rows)

    def shard(self, number: int) -> range:
        """The rows of one shard."""
        return range(self.count)[number * self.rows : (number + 1) * self.rows]


class Stages:
    """The stages of a corpus.

    Args:
        encoders: the config's, `drin_jax.extract.encoding.Encoders`.

    Attributes:
        sides: the items of each side.
        sources: file -> SHA-256 of every file that was read, boxes too.
        ready: features from elsewhere; None: pictures are encoded.
    """

    def __init__(self, config: ConfigDict, corpus: Corpus, encoders: Any):
        self.config, self.corpus, self.encoders = config, corpus, encoders
        self.sources = dict(corpus.sources)
        self.sides: dict[str, Sequence[Any]] = {
            "entity": corpus.entities,
            "mention": corpus.mentions,
        }
        self._boxes = {}
        if config.encoders.objects and not encoders.detects:
            path = Path(config.data.root) / config.encoders.objects
            self._boxes = precomputed.load_boxes(path, self.sources)
        self.ready = None
        if name := config.encoders.pictures:
            local = Path(config.data.root) / name
            self.ready = precomputed.load(local if local.exists() else name)

    def _text(self, row: int, side: str, prefix: str = "") -> tuple[str, Span]:
        template, item = self.config.text[f"{prefix}{side}"], self.sides[side][row]
        if side == "mention":
            return mention_text(template, item)
        return entity_text(template, item), None

    def _vectors(self, encoder: str, *tables: str) -> Tables:
        width = int(getattr(self.encoders, encoder).width)
        return dict.fromkeys(tables, ((width,), "float32"))

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

        def of(side: str) -> Stage:
            tables = [table for table in self.encoders.poolings if table.startswith(side)]
            return Stage(
                f"{side}_texts",
                len(self.sides[side]),
                ROWS,
                lambda rows: [self._text(i, side) for i in rows],
                self._vectors("text", *tables),
            )

        return [of(side) for side in self.sides]

    def clip_texts(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """CLIP over the unique texts of both sides, and each side's rows in them (-1: blank)."""
        texts, rows = self._unique(
            lambda row, side: self._text(row, side, "clip_")[0].strip() or None
        )
        tables = self._vectors("clip", "clip_text")
        return Stage(
            "clip_texts", len(texts), ROWS, lambda some: [texts[i] for i in some], tables
        ), rows

    def _unique(
        self, key: Callable[[int, str], str | None]
    ) -> tuple[list[str], dict[str, np.ndarray]]:
        """The distinct keys of both sides in order of appearance, and the number [n] of each of a
        side's items, -1: None."""
        keys = (key(row, side) for side, some in self.sides.items() for row in range(len(some)))
        found, numbers = distinct(keys)
        parts = np.split(numbers, np.cumsum([len(some) for some in self.sides.values()])[:-1])
        return found, dict(zip(self.sides, parts, strict=True))

    def pictures(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """The unique pictures of both sides, and each side's rows in them (-1: none)."""
        paths, own = self._unique(lambda row, side: self.sides[side][row].image)
        encoders = self.encoders
        keep = np.zeros(len(paths), np.int64)
        for side in SIDES:
            seen = own[side][own[side] >= 0]
            keep[seen] = np.maximum(keep[seen], encoders.keep[side])

        def picture(row: int) -> Picture:
            found, scores = self._boxes.get(paths[row], (None, None))
            if found is not None and scores is not None:
                found, scores = found[: keep[row]], scores[: keep[row]]
            return Picture(paths[row], int(keep[row]), found, scores)

        tables = self._vectors("image", "image") | {"status": ((), "uint8")}
        if encoders.names["clip"]:
            tables |= self._vectors("clip", "clip_image")
        if self.config.encoders.objects:
            tables |= self._vectors("image", *map(objects_table, encoders.keep.values()))
        size = DETECTED_PER_SHARD if encoders.detects else PICTURES_PER_SHARD
        stage = Stage("pictures", len(paths), size, lambda rows: [*map(picture, rows)], tables)
        return stage, own

    def tokens(self) -> tuple[Stage, np.ndarray, np.ndarray]:
        """BERT over the mentions once more for the vectors of all tokens, `mention_token_offsets`,
        and `mention_span`."""
        encoder, limit = self.encoders.text, self.config.encoders.max_tokens
        found = []
        every = range(len(self.corpus.mentions))
        for begin in range(0, len(every), ROWS):
            own = [self._text(i, "mention") for i in every[begin : begin + ROWS]]
            texts, spans = zip(*own, strict=True)
            found.append(encoder.token_counts(texts, spans, limit))
        counts, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
        offsets = offsets_of(counts)

        def items(rows: range) -> list[Any]:
            """The mentions that the rows belong to; those at the ends are shared with others."""
            first = int(np.searchsorted(offsets, rows.start, "right")) - 1
            last = int(np.searchsorted(offsets, rows.stop, "left"))
            inside = np.clip(offsets[first : last + 1], rows.start, rows.stop)
            return [
                (*self._text(i, "mention"), int(low - offsets[i]), int(high - offsets[i]))
                for i, low, high in zip(range(first, last), inside, inside[1:], strict=False)
            ]

        tables = self._vectors("text", "mention_tokens")
        stage = Stage("mention_tokens", int(offsets[-1]), TOKENS_PER_SHARD, items, tables)
        return stage, offsets, ends

    def regions(self, store: Store) -> tuple[Stage, np.ndarray]:
        """The image encoder once more for the regions of every unique mention picture that the
        store's own pass could read, and `mention_region_row`."""
        has = np.asarray(store.array("mention_has_image"))
        images = [mention.image for mention in self.corpus.mentions]
        if gone := [i for i in np.flatnonzero(has) if images[i] is None]:
            raise UserError(
                f"{store.path}: the picture of mention {gone[0]} is gone from the raw files"
            )
        pairs = zip(images, has, strict=True)
        paths, rows = distinct(image if seen else None for image, seen in pairs)
        side = self.encoders.plan.looks["image"].height
        none = np.zeros((0, side, side, 3), np.uint8)
        shape = self.encoders.image.encode(none, regions=True)["regions"].shape[1:]
        stage = Stage(
            "mention_regions",
            len(paths),
            REGIONS_PER_SHARD,
            lambda some: [Picture(paths[i]) for i in some],
            {"mention_regions": (shape, "float32")},
        )
        return stage, rows.astype(np.int32)
