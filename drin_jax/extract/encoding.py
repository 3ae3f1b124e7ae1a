"""One shard of the data through the frozen encoders: the unit of work, here and on other machines.

`Encoders.encode` is a function of a shard's items alone, so that shards can be made in any order,
again after a kill, or by a Beam worker elsewhere (`drin_jax.extract.beam`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.pictures import decoding, images
from data_pipeline.pictures.decoding import Decoder, Wanted
from data_pipeline.schema import UserError
from data_pipeline.store.split_arrays import unit
from drin_jax.config import SPEED, deciding
from drin_jax.extract.encoder_settings import EncoderSettings
from drin_jax.extract.stages import Picture, objects_table, plain_items

Arrays = dict[str, np.ndarray]
# Settings that change no number.
SPEEDS = [
    field
    for group, _, field in (name.partition(".") for name in sorted(deciding(SPEED)))
    if group in ("encoders", "image")
]
GROUP, DETECTED = 128, 8  # pictures encoded at once; the same where a detector sees them whole


class Encoders:
    """The frozen encoders of a config, each loaded when it is first needed.

    Raises:
        UserError: one line on a checkpoint that is missing, damaged or foreign.
    """

    def __init__(self, settings: EncoderSettings):
        self.settings = settings

    @cached_property
    def text(self) -> Any:
        from drin_jax.encoders.text_encoder import TextEncoder

        s = self.settings
        return TextEncoder(
            s.text, dtype=s.dtype, max_length=s.max_length, batch_tokens=s.batch_tokens
        )

    @cached_property
    def clip(self) -> Any:
        from drin_jax.encoders.picture_encoders import ClipEncoder

        s = self.settings
        return ClipEncoder(s.clip, dtype=s.dtype, batch=s.batch_images)

    @cached_property
    def image(self) -> Any:
        from drin_jax.encoders.picture_encoders import ResNetEncoder

        s = self.settings
        return ResNetEncoder(s.image, dtype=s.dtype, batch=s.batch_images)

    @cached_property
    def detector(self) -> Any:
        from drin_jax.encoders.detector import Detector

        return Detector(self.settings.objects, weights=self.settings.detector_weights or None)

    def width(self, name: str) -> int:
        """Of the vectors of "text", "clip" or "image"."""
        return int(getattr(self, name).width)

    def weights(self) -> dict[str, str]:
        """Encoder -> SHA-256 of its files: what a store was made with. Loads them all."""
        names = [name for name in ("text", "clip", "image") if getattr(self.settings, name)]
        found = {name: str(getattr(self, name).fingerprint) for name in names}
        if self.settings.detects:
            found["detector"] = str(self.detector.fingerprint)
        return found

    def stamp(self, kind: str, items: Sequence[Any]) -> str:
        """SHA-256 of all that a shard of this kind is made from: items, settings, weights."""
        which = {"pictures": ("image", "clip", "detector"), "clip_texts": ("clip",)}
        names = [
            name
            for name in which.get(kind, ("text",))
            if (self.settings.detects if name == "detector" else getattr(self.settings, name))
        ]
        fields = dataclasses.asdict(self.settings)
        # Folders differ between machines, speeds and the other encoders' names do not matter.
        for name in ("text", "clip", "image", *SPEEDS):
            del fields[name]
        weights = [getattr(self, name).fingerprint for name in names]
        content = json.dumps([kind, weights, fields, plain_items(items)], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def plan(self) -> decoding.Plan:
        """What is made of a picture's pixels."""
        s = self.settings
        own = _processor(self.image)
        looks = {"image": images.plain(own.height) if s.preprocess == "paper" else own}
        if s.clip:
            looks["clip"] = _processor(self.clip)
            if (side := looks["clip"].height) != self.clip.image_size:
                raise UserError(
                    f"{self.clip.preprocessor_file}: makes pictures of {side} pixels, but "
                    f"config.json's image_size is {self.clip.image_size}; use a matching pair"
                )
        return decoding.Plan(
            looks,
            crop=images.plain(own.height) if s.objects else None,
            full=self.settings.detects,
            max_pixels=s.max_pixels,
            min_side=s.min_side,
        )

    def encode(
        self, kind: str, shards: Iterable[Sequence[Any]], total: int = 0
    ) -> Iterator[Arrays]:
        """The tables of each shard, in order. `total` items tell whether processes are worth it.

        Kinds, with what a shard's items are and the tables [n, …] float32 they give:

        * "mention_texts", "entity_texts": (text, span) -> the tables of `settings.poolings`
        * "clip_texts": str -> `clip_text`, unit length
        * "pictures": Picture -> `status` uint8 (`data_pipeline.pictures.images.STATUSES`), `image`,
          `clip_image` (unit length) and `objects_K` for each number K of objects that a side
          keeps (the score-weighted mean of their unit vectors), zeros where masked
        """
        if kind == "pictures":
            yield from self._pictures(shards, total)
            return
        for items in shards:
            if kind == "clip_texts":
                yield {"clip_text": unit(self.clip.encode_texts(list(items)))}
            else:
                yield self._texts(kind.removesuffix("_texts"), items)

    def _texts(self, side: str, items: Sequence[tuple[str, tuple[int, int] | None]]) -> Arrays:
        poolings = {k: v for k, v in self.settings.poolings.items() if k.startswith(side)}
        encoded = self.text.encode(
            [text for text, _ in items],
            [span for _, span in items],
            tuple(dict.fromkeys(poolings.values())),
        )
        return {table: encoded[pooling] for table, pooling in poolings.items()}

    def _pictures(self, shards: Iterable[Sequence[Picture]], total: int) -> Iterator[Arrays]:
        """Decodes one shard ahead of the encoders."""
        with Decoder(self.plan, self.settings.workers, total) as decoder:
            ahead: tuple[Sequence[Picture], Iterator[decoding.Decoded]] | None = None
            for items in shards:
                begun = items, decoder.start([Wanted(p.path, p.boxes) for p in items])
                if ahead:
                    yield self._shard(*ahead)
                ahead = begun
            if ahead:
                yield self._shard(*ahead)

    def regions(self, shards: Iterable[Sequence[str]], total: int) -> Iterator[np.ndarray]:
        """The image encoder's last map [n, q, v] float32 of each shard of pictures (paths).

        Raises:
            UserError: a picture that cannot be read.
        """
        plan = dataclasses.replace(
            self.plan, looks={"image": self.plan.looks["image"]}, crop=None, full=False
        )
        with Decoder(plan, self.settings.workers, total) as decoder:
            for paths in shards:
                pixels = []
                for path, one in zip(paths, decoder.start([Wanted(p) for p in paths]), strict=True):
                    if one.status >= images.READ:
                        raise UserError(
                            f"{path}: {images.STATUSES[one.status]}, but it could be read when the "
                            "store was made; put it back, or make the store anew"
                        )
                    pixels.append(one.looks["image"])
                yield self.image.encode(np.stack(pixels), regions=True)["regions"]

    def _shard(self, items: Sequence[Picture], decoded: Iterator[decoding.Decoded]) -> Arrays:
        # Few at a time: whole pictures for a detector are large.
        size = DETECTED if self.settings.detects else GROUP
        parts = []
        for begin in range(0, len(items), size):
            some = items[begin : begin + size]
            parts.append(self._group(some, [next(decoded) for _ in some]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _group(self, items: Sequence[Picture], decoded: Sequence[decoding.Decoded]) -> Arrays:
        status = np.array([one.status for one in decoded], np.uint8)
        rows = np.flatnonzero(status < images.READ).tolist()
        out = {"status": status}
        look = {name: [decoded[i].looks[name] for i in rows] for name in self.plan.looks}
        pooled = self.image.encode(np.stack(look["image"]))["pooled"] if len(rows) else None
        out["image"] = _spread(pooled, rows, len(items), self.image.width)
        if self.settings.clip:
            vectors = self.clip.encode_pictures(np.stack(look["clip"])) if len(rows) else None
            out["clip_image"] = unit(_spread(vectors, rows, len(items), self.clip.width))
        if self.settings.objects:
            out |= self._objects(items, decoded, rows)
        return out

    def _objects(
        self, items: Sequence[Picture], decoded: Sequence[decoding.Decoded], rows: list[int]
    ) -> Arrays:
        found = list(self._regions(items, decoded, rows))
        counts = [len(scores) for _, scores in found]
        width = self.image.width
        kept_of = {objects_table(keep): keep for keep in self.settings.keep.values()}
        means = {name: np.zeros((len(items), width), np.float32) for name in kept_of}
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

    def _regions(
        self, items: Sequence[Picture], decoded: Sequence[decoding.Decoded], rows: list[int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each picture that was read: its best objects' pixels and scores."""
        crop = self.plan.crop
        assert crop is not None
        if self.settings.detects:
            keep = max(self.settings.keep.values())
            whole = [full for i in rows if (full := decoded[i].full) is not None]
            found = self.detector.find(whole, keep)
            for i, picture, (boxes, scores) in zip(rows, whole, found, strict=True):
                inside, there = images.clipped(boxes, picture.shape[1::-1])
                kept = np.flatnonzero(there)[: items[i].keep]
                yield images.crops(Image.fromarray(picture), inside[kept], crop), scores[kept]
            return
        none = np.zeros((0, crop.height, crop.width, 3), np.uint8)
        for i in rows:
            one, given = decoded[i], items[i].scores
            if one.crops is None or one.kept is None or given is None:
                yield none, np.zeros(0, np.float32)
            else:
                yield one.crops, given[one.kept]


def _processor(encoder: Any) -> images.Recipe:
    return images.processor(encoder.preprocessor, str(encoder.preprocessor_file))


def _spread(values: np.ndarray | None, rows: list[int], n: int, width: int) -> np.ndarray:
    """Values [len(rows), width] at their rows of [n, width], zeros elsewhere."""
    out = np.zeros((n, width), np.float32)
    if values is not None:
        out[rows] = values
    return out
