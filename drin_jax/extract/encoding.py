"""One shard of the data through the frozen encoders: the unit of work, here and on other machines.

`Encoders.encode` is a function of a shard's items alone, so that shards can be made in any order,
again after a kill, or by a Beam worker elsewhere (`drin_jax.extract.beam`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from data_pipeline.pictures import decoding, images
from data_pipeline.pictures.decoding import Decoded, Decoder, Wanted
from data_pipeline.schema import UserError
from data_pipeline.store.split_arrays import unit
from drin_jax.config import STORE, deciding, flat
from drin_jax.extract.items import SIDES, Picture, objects_table, plain_items

Arrays = dict[str, np.ndarray]
DETECTORS = ("fasterrcnn", "maskrcnn")
GROUP, DETECTED = 128, 8  # pictures encoded at once; the same where a detector sees them whole


class Encoders:
    """The frozen encoders of a config, each loaded when it is first needed.

    A name that is a folder under data.root means that folder: it has to be there, as a data set may
    bring its own.

    Attributes:
        names: "text", "clip" and "image" -> folder or id, "" for none.
        poolings: table of the store -> pooling of the text encoder.
        keep: side -> objects of a picture, the best ones.
        detects: whether boxes come from a detector that runs here.

    Raises:
        UserError: one line on a checkpoint that is missing, damaged or foreign.
    """

    def __init__(self, config: ConfigDict):
        self.config = config
        encoders, root = config.encoders, Path(config.data.root)
        self.names: dict[str, str] = {}
        for name in ("text", "clip", "image"):
            given = encoders[name]
            self.names[name] = str(root / given) if given and (root / given).is_dir() else given
        self.poolings: dict[str, str] = {}
        for side in SIDES:
            self.poolings[f"{side}_text"] = encoders[f"{side}_vertex"]
            if encoders[f"{side}_edge"] != encoders[f"{side}_vertex"]:
                self.poolings[f"{side}_text_edge"] = encoders[f"{side}_edge"]
        self.keep = {side: int(encoders[f"{side}_objects"]) for side in SIDES}
        self.detects = encoders.objects in DETECTORS

    @cached_property
    def text(self) -> Any:
        """The text encoder."""
        from drin_jax.encoders.text_encoder import TextEncoder

        limits = {name: self.config.encoders[name] for name in ("max_length", "batch_tokens")}
        return TextEncoder(self.names["text"], dtype=self.config.encoders.dtype, **limits)

    @cached_property
    def clip(self) -> Any:
        """CLIP, both towers."""
        from drin_jax.encoders.picture_encoders import ClipEncoder

        return self._pictures_by(ClipEncoder, "clip")

    @cached_property
    def image(self) -> Any:
        """The ResNet."""
        from drin_jax.encoders.picture_encoders import ResNetEncoder

        return self._pictures_by(ResNetEncoder, "image")

    def _pictures_by(self, kind: Any, name: str) -> Any:
        encoders = self.config.encoders
        return kind(self.names[name], dtype=encoders.dtype, batch=encoders.batch_images)

    @cached_property
    def detector(self) -> Any:
        """The object detector."""
        from drin_jax.encoders.detector import Detector

        encoders = self.config.encoders
        return Detector(encoders.objects, weights=encoders.detector_weights or None)

    def weights(self, *names: str) -> dict[str, str]:
        """Those of these encoders that the config has -> SHA-256 of their files. Loads them."""
        has = self.names | {"detector": self.detects}
        return {name: str(getattr(self, name).fingerprint) for name in names if has[name]}

    def stamp(self, kind: str, items: Sequence[Any]) -> str:
        """SHA-256 of all that a shard of this kind is made from: items, settings, weights."""
        which = {"pictures": ("image", "clip", "detector"), "clip_texts": ("clip",)}
        # Folders differ between machines, speeds and the other encoders' names do not matter.
        fields = {
            name: value
            for name, value in flat(self.config).items()
            if name in deciding(STORE) and name.startswith(("encoders.", "image."))
        }
        for name in self.names:
            del fields[f"encoders.{name}"]
        weights = self.weights(*which.get(kind, ("text",)))
        content = json.dumps([kind, weights, fields, plain_items(items)], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def plan(self) -> decoding.Plan:
        """What is made of a picture's pixels."""
        image = self.config.image
        own = _processor(self.image)
        looks = {"image": images.plain(own.height) if image.preprocess == "paper" else own}
        if self.names["clip"]:
            looks["clip"] = _processor(self.clip)
            if (side := looks["clip"].height) != self.clip.image_size:
                raise UserError(
                    f"{self.clip.preprocessor_file}: makes pictures of {side} pixels, but "
                    f"config.json's image_size is {self.clip.image_size}; use a matching pair"
                )
        return decoding.Plan(
            looks,
            crop=images.plain(own.height) if self.config.encoders.objects else None,
            full=self.detects,
            limits=images.Limits(image.max_pixels, image.max_bytes, image.min_side),
        )

    def encode(
        self, kind: str, shards: Iterable[Sequence[Any]], total: int = 0
    ) -> Iterator[Arrays]:
        """The tables of each shard, in order. `total` items tell whether processes are worth it.

        Kinds, with what a shard's items are and the tables [n, …] float32 they give:

        * "mention_texts", "entity_texts": (text, span) -> the tables of `poolings`
        * "clip_texts": str -> `clip_text`, unit length
        * "pictures": Picture -> `status` uint8 (`data_pipeline.pictures.images.STATUSES`), `image`,
          `clip_image` (unit length) and `objects_K` for each number K of objects that a side
          keeps (the score-weighted mean of their unit vectors), zeros where masked
        * "mention_tokens": (text, span, first and last+1 of its tokens) -> `mention_tokens`
        * "mention_regions": Picture -> `mention_regions`, the image encoder's last map; UserError
          where one cannot be read
        """
        if kind == "pictures":
            yield from self._pictures(self.plan, self._features, shards, total)
            return
        if kind == "mention_regions":
            looks = {"image": self.plan.looks["image"]}
            plan = dataclasses.replace(self.plan, looks=looks, crop=None, full=False)
            yield from self._pictures(plan, self._regions, shards, total)
            return
        for items in shards:
            if kind == "clip_texts":
                yield {"clip_text": unit(self.clip.encode_texts(list(items)))}
            elif kind == "mention_tokens":
                texts, spans, first, last = zip(*items, strict=True)
                rows = self.text.encode_tokens(texts, spans, self.config.encoders.max_tokens)
                # Only of the first text are the first tokens another shard's.
                yield {kind: rows[first[0] :][: sum(last) - sum(first)]}
            else:
                side = kind.removesuffix("_texts")
                own = {k: pooling for k, pooling in self.poolings.items() if k.startswith(side)}
                texts, spans = zip(*items, strict=True)
                encoded = self.text.encode(texts, spans, tuple(dict.fromkeys(own.values())))
                yield {table: encoded[pooling] for table, pooling in own.items()}

    def _pictures(
        self,
        plan: decoding.Plan,
        encode: Callable[[Sequence[Picture], Iterator[Decoded]], Arrays],
        shards: Iterable[Sequence[Picture]],
        total: int,
    ) -> Iterator[Arrays]:
        """Decodes one shard ahead of the encoders."""
        with Decoder(plan, self.config.image.workers, total) as decoder:
            ahead: tuple[Sequence[Picture], Iterator[Decoded]] | None = None
            for items in shards:
                begun = items, decoder.start([Wanted(p.path, p.boxes) for p in items])
                if ahead:
                    yield encode(*ahead)
                ahead = begun
            if ahead:
                yield encode(*ahead)

    def _look(self, decoded: Sequence[Decoded], name: str) -> np.ndarray:
        """What an encoder sees of the pictures that were read, [n, h, w, 3] uint8."""
        recipe = self.plan.looks[name]
        read = [one.looks[name] for one in decoded if one.status < images.READ]
        return np.array(read, np.uint8).reshape(-1, recipe.height, recipe.width, 3)

    def _regions(self, items: Sequence[Picture], decoded: Iterator[Decoded]) -> Arrays:
        found = list(decoded)
        for item, one in zip(items, found, strict=True):
            if one.status >= images.READ:
                raise UserError(
                    f"{item.path!s}: {images.STATUSES[one.status]}, but it could be read when the "
                    "store was made; put it back, or make the store anew"
                )
        regions = self.image.encode(self._look(found, "image"), regions=True)["regions"]
        return {"mention_regions": regions}

    def _features(self, items: Sequence[Picture], decoded: Iterator[Decoded]) -> Arrays:
        # Few at a time: whole pictures for a detector are large.
        size = DETECTED if self.detects else GROUP
        parts = []
        for begin in range(0, len(items), size):
            some = items[begin : begin + size]
            parts.append(self._group(some, [next(decoded) for _ in some]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _group(self, items: Sequence[Picture], decoded: Sequence[Decoded]) -> Arrays:
        status = np.array([one.status for one in decoded], np.uint8)
        rows = np.flatnonzero(status < images.READ).tolist()

        def spread(values: np.ndarray) -> np.ndarray:
            out = np.zeros((len(items), values.shape[1]), np.float32)
            out[rows] = values
            return out

        out = {"status": status}
        out["image"] = spread(self.image.encode(self._look(decoded, "image"))["pooled"])
        if self.names["clip"]:
            vectors = self.clip.encode_pictures(self._look(decoded, "clip"))
            out["clip_image"] = unit(spread(vectors))
        if self.config.encoders.objects:
            out |= self._objects(items, decoded, rows)
        return out

    def _objects(
        self, items: Sequence[Picture], decoded: Sequence[Decoded], rows: list[int]
    ) -> Arrays:
        found = list(self._crops(items, decoded, rows))
        counts = [len(scores) for _, scores in found]
        kept_of = {objects_table(item.keep): item.keep for item in items}
        means = {name: np.zeros((len(items), self.image.width), np.float32) for name in kept_of}
        if sum(counts):
            crops = np.concatenate([regions for regions, _ in found])
            features = unit(self.image.encode(crops)["pooled"])
            weights = np.concatenate([scores for _, scores in found]).astype(np.float32)
            owners = np.repeat(rows, counts)
            rank = np.concatenate([np.arange(count) for count in counts])
            for name, keep in kept_of.items():
                kept = np.where(rank < keep, weights, 0)
                total = np.bincount(owners, kept, len(items)).astype(np.float32)
                np.add.at(means[name], owners, kept[:, None] * features)
                means[name] /= np.where(total > 0, total, 1)[:, None]
        return means

    def _crops(
        self, items: Sequence[Picture], decoded: Sequence[Decoded], rows: list[int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each picture that was read: its best objects' pixels and scores."""
        crop = self.plan.crop
        assert crop is not None
        if self.detects:
            whole = [full for i in rows if (full := decoded[i].full) is not None]
            found = self.detector.find(whole, max(self.keep.values()))
            for i, picture, (boxes, scores) in zip(rows, whole, found, strict=True):
                inside, there = images.clipped(boxes, picture.shape[1::-1])
                kept = np.flatnonzero(there)[: items[i].keep]
                yield images.crops(Image.fromarray(picture), inside[kept], crop), scores[kept]
            return
        none = np.zeros((0, crop.height, crop.width, 3), np.uint8), np.zeros(0, np.float32)
        for i in rows:
            one, given = decoded[i], items[i].scores
            if one.crops is None or one.kept is None or given is None:
                yield none
            else:
                yield one.crops, given[one.kept]


def _processor(encoder: Any) -> images.Recipe:
    return images.processor(encoder.preprocessor, str(encoder.preprocessor_file))
