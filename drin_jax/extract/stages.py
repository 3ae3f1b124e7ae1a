"""What the encoders have to see of a corpus: everything unique, in stages of shards."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.pictures import precomputed
from data_pipeline.schema import Span, UserError
from data_pipeline.store.reader import Store
from data_pipeline.store.split_arrays import distinct, offsets_of
from drin_jax.extract.items import Picture, entity_text, mention_text, objects_table

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
        name: of the stage: its kind, and the side.
        rows: of a shard.
        items: the items of some rows, made when they are needed: a million texts are not held at
            once.
        tables: name -> shape of a row and dtype.
    """

    kind: str
    name: str
    count: int
    rows: int
    items: Callable[[range], list[Any]]
    tables: Tables

    @property
    def shards(self) -> int:
        """How many shards it has."""
        return -(-self.count // self.rows)

    def shard(self, number: int) -> range:
        """The rows of one shard."""
        return range(self.count)[number * self.rows : (number + 1) * self.rows]


class Stages:
    """The stages of one side of a corpus.

    Args:
        side: "entity" or "mention".
        items: the entities or mentions.
        sources: file -> SHA-256 of what they were read from.
        encoders: the config's, `drin_jax.extract.encoding.Encoders`.
        known: items are of the data set, so that its file of boxes has to be there.

    Attributes:
        sources: the same of every file that was read, boxes too.
        ready: features from elsewhere; None: pictures are encoded.
    """

    def __init__(
        self,
        config: ConfigDict,
        side: str,
        items: Sequence[Any],
        sources: Mapping[str, str],
        encoders: Any,
        known: bool = True,
    ):
        self.config, self.side, self.items, self.encoders = config, side, items, encoders
        self.sources = dict(sources)
        self._boxes = {}
        self._given: Mapping[str, bytes] = {}
        path = Path(config.data.root) / config.encoders.objects
        if config.encoders.objects and not encoders.detects and (known or path.is_file()):
            self._boxes = precomputed.load_boxes(path, self.sources)
        self.ready = None
        if name := config.encoders.pictures:
            local = Path(config.data.root) / name
            self.ready = precomputed.load(local if local.exists() else name)

    def of(self, items: Sequence[Any], given: Mapping[str, bytes]) -> "Stages":
        """The same of other items, and what is in the files of pictures that are in none."""
        other = copy.copy(self)
        other.items, other._given = items, given
        return other

    def _text(self, row: int, prefix: str = "") -> tuple[str, Span]:
        template, item = self.config.text[f"{prefix}{self.side}"], self.items[row]
        if self.side == "mention":
            return mention_text(template, item)
        return entity_text(template, item), None

    def _vectors(self, encoder: str, *tables: str) -> Tables:
        width = int(getattr(self.encoders, encoder).width)
        return dict.fromkeys(tables, ((width,), "float32"))

    def all(self) -> list[Stage]:
        """Everything that an encoder has to see."""
        found = [self.texts()]
        if self.config.encoders.clip:
            found.append(self.clip_texts()[0])
        if self.config.encoders.image:
            found.append(self.pictures()[0])
        return found

    def texts(self) -> Stage:
        """BERT over every text."""
        kind = f"{self.side}_texts"
        tables = [table for table in self.encoders.poolings if table.startswith(self.side)]
        return Stage(
            kind,
            kind,
            len(self.items),
            ROWS,
            lambda rows: [self._text(i) for i in rows],
            self._vectors("text", *tables),
        )

    def clip_texts(self) -> tuple[Stage, np.ndarray]:
        """CLIP over the unique texts, and each item's row [n] in them (-1: blank)."""
        texts, rows = distinct(
            self._text(row, "clip_")[0].strip() or None for row in range(len(self.items))
        )
        tables = self._vectors("clip", "clip_text")
        name = f"{self.side}_clip_texts"
        stage = Stage(
            "clip_texts", name, len(texts), ROWS, lambda some: [texts[i] for i in some], tables
        )
        return stage, rows

    def pictures(self) -> tuple[Stage, np.ndarray]:
        """The unique pictures, and each item's row [n] in them (-1: none)."""
        paths, own = distinct(item.image for item in self.items)
        keep = self.encoders.keep[self.side]

        def picture(row: int) -> Picture:
            found, scores = self._boxes.get(paths[row], (None, None))
            if found is not None and scores is not None:
                found, scores = found[:keep], scores[:keep]
            return Picture(self._given.get(paths[row], paths[row]), keep, found, scores)

        tables = self._vectors("image", "image") | {"status": ((), "uint8")}
        if self.encoders.names["clip"]:
            tables |= self._vectors("clip", "clip_image")
        if self.config.encoders.objects:
            tables |= self._vectors("image", objects_table(keep))
        size = DETECTED_PER_SHARD if self.encoders.detects else PICTURES_PER_SHARD
        name = f"{self.side}_pictures"
        stage = Stage(
            "pictures", name, len(paths), size, lambda rows: [*map(picture, rows)], tables
        )
        return stage, own

    def tokens(self) -> tuple[Stage, np.ndarray, np.ndarray]:
        """BERT over the mentions once more for the vectors of all tokens, `mention_token_offsets`,
        and `mention_span`."""
        encoder, limit = self.encoders.text, self.config.encoders.max_tokens
        found = []
        every = range(len(self.items))
        for begin in range(0, len(every), ROWS):
            own = [self._text(i) for i in every[begin : begin + ROWS]]
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
                (*self._text(i), int(low - offsets[i]), int(high - offsets[i]))
                for i, low, high in zip(range(first, last), inside, inside[1:], strict=False)
            ]

        tables = self._vectors("text", "mention_tokens")
        kind = "mention_tokens"
        stage = Stage(kind, kind, int(offsets[-1]), TOKENS_PER_SHARD, items, tables)
        return stage, offsets, ends

    def regions(self, store: Store) -> tuple[Stage, np.ndarray]:
        """The image encoder once more for the regions of every unique mention picture that the
        store's own pass could read, and `mention_region_row`."""
        has = np.asarray(store.array("mention_has_image"))
        images = [mention.image for mention in self.items]
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
            "mention_regions",
            len(paths),
            REGIONS_PER_SHARD,
            lambda some: [Picture(paths[i]) for i in some],
            {"mention_regions": (shape, "float32")},
        )
        return stage, rows.astype(np.int32)
