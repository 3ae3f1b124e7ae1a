"""Every feature table of a corpus: what is unique, which encoder sees it, and where it ends up."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.pictures import boxes, images, precomputed
from data_pipeline.schema import Corpus, UserError
from data_pipeline.store.writer import StoreWriter
from drin_jax.extract.encoding import (
    DETECTORS,
    SIDES,
    Encoders,
    EncoderSettings,
    Picture,
    objects_table,
)
from drin_jax.extract.tables import ROWS, Stage, fill, gather, unique
from drin_jax.extract.texts import Span, entity_text, mention_text

PICTURES_PER_SHARD = 256
DETECTED_PER_SHARD = 32  # a detector sees whole pictures, which are held one shard ahead
LISTED = 20  # masked pictures named in the store's report; all of them in masked_pictures.tsv


def encoder_settings(config: ConfigDict) -> EncoderSettings:
    """The config's encoders, with names under data.root resolved."""
    encoders, image = config.encoders, config.image
    keep = {side: int(encoders[f"{side}_objects"]) for side in SIDES}
    poolings = {}
    for side in SIDES:
        poolings[f"{side}_text"] = encoders[f"{side}_vertex"]
        if encoders[f"{side}_edge"] != encoders[f"{side}_vertex"]:
            poolings[f"{side}_text_edge"] = encoders[f"{side}_edge"]
    root = Path(config.data.root)

    def local(name: str) -> str:
        return str(root / name) if name and (root / name).is_dir() else name

    return EncoderSettings(
        text=local(encoders.text),
        clip=local(encoders.clip),
        image=local(encoders.image),
        objects=encoders.objects,
        poolings=poolings,
        keep=keep,
        detector_weights=encoders.detector_weights,
        dtype=encoders.dtype,
        max_length=encoders.max_length,
        batch_tokens=encoders.batch_tokens,
        batch_images=encoders.batch_images,
        preprocess=image.preprocess,
        max_pixels=image.max_pixels,
        min_side=image.min_side,
        workers=image.workers,
    )


class Features:
    """The feature tables of a corpus.

    Attributes:
        sources: file -> SHA-256 of every file that was read, boxes and precomputed features too.
    """

    def __init__(self, config: ConfigDict, corpus: Corpus, encoders: Encoders):
        self.config, self.corpus, self.encoders = config, corpus, encoders
        self.sources = dict(corpus.sources)
        self._sides: dict[str, Sequence[Any]] = {
            "entity": corpus.entities,
            "mention": corpus.mentions,
        }
        # Asked now, so that a mistake is told before anything is encoded.
        self._text(0, "entity"), self._text(0, "mention")
        self._text(0, "entity", "clip_"), self._text(0, "mention", "clip_")
        root, name = Path(config.data.root), config.encoders.objects
        self._boxes = {}
        if name and name not in DETECTORS:
            self._boxes = boxes.load(root / name, self.sources)
        if config.encoders.image and not any(
            item.image for items in self._sides.values() for item in items
        ):
            raise UserError(
                f"{root}: encoders.image is set, but not one picture of the data set is there; "
                "put them in their place, or unset encoders.image, clip and objects"
            )

    def write(self, writer: StoreWriter, workdir: Path, made: Path | None) -> dict[str, Any]:
        """Writes every table of both sides; returns what the store's report says of them."""
        entities, mentions = self.corpus.entities, self.corpus.mentions
        blank = [not (e.name.strip() or e.description.strip()) for e in entities]
        writer.write("entity_has_text", ~np.array(blank, bool))
        writer.write("mention_has_text", np.array([bool(m.text.strip()) for m in mentions]))
        for stage in self.text_stages():
            fill(stage, self.encoders, writer.shards, made)
        report = {"text_encoder": self._told("text")}
        if self.config.encoders.pictures:
            return report | self._write_precomputed(writer)
        return (
            report
            | self._write_clip_texts(writer, made)
            | self._write_pictures(writer, workdir, made)
        )

    def _told(self, name: str) -> dict[str, Any]:
        encoder = getattr(self.encoders, name)
        return {
            "name": self.config.encoders[name],
            "fingerprint": encoder.fingerprint,
            "width": encoder.width,
        }

    def _text(self, row: int, side: str, prefix: str = "") -> tuple[str, Span]:
        template, field = self.config.text[f"{prefix}{side}"], f"text.{prefix}{side}"
        if side == "mention":
            return mention_text(template, self.corpus.mentions[row], field)
        entity = self.corpus.entities[row]
        return entity_text(template, entity.name, entity.description, field), None

    def stages(self) -> list[Stage]:
        """Everything that an encoder has to see."""
        found = self.text_stages()
        if self.config.encoders.clip:
            found.append(self.clip_texts()[0])
        if self.config.encoders.image:
            found.append(self.pictures()[0])
        return found

    def text_stages(self) -> list[Stage]:
        """BERT over both sides."""
        width = self.encoders.text.width
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
                    for table in self.encoders.settings.poolings
                    if table.startswith(side)
                },
            )
            for side, items in self._sides.items()
        ]

    def clip_texts(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """CLIP over the unique texts of both sides, and each side's rows in them (-1: blank)."""
        keys = [
            self._text(row, side, "clip_")[0].strip() or None
            for side, items in self._sides.items()
            for row in range(len(items))
        ]
        number, rows = unique(iter(keys))
        texts = list(number)
        stage = Stage(
            kind="clip_texts",
            title="encoding texts with CLIP",
            unit="texts",
            count=len(texts),
            item=texts.__getitem__,
            rows=ROWS,
            tables={"clip_text": ((self.encoders.clip.width,), "float32")},
        )
        return stage, self._split(rows)

    def _split(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        n = len(self.corpus.entities)
        return {"entity": rows[:n], "mention": rows[n:]}

    def pictures(self) -> tuple[Stage, dict[str, np.ndarray]]:
        """The unique pictures of both sides, and each side's rows in them (-1: none)."""
        number, rows = unique(item.image for items in self._sides.values() for item in items)
        own, paths = self._split(rows), list(number)
        settings = self.encoders.settings
        keep = np.zeros(len(paths), np.int64)
        for side in SIDES:
            seen = own[side][own[side] >= 0]
            keep[seen] = np.maximum(keep[seen], settings.keep[side])

        def picture(row: int) -> Picture:
            found, scores = self._boxes.get(paths[row], (None, None))
            if found is not None and scores is not None:
                found, scores = found[: keep[row]], scores[: keep[row]]
            return Picture(paths[row], int(keep[row]), found, scores)

        width = ((self.encoders.image.width,), "float32")
        tables = {"status": ((), "uint8"), "image": width}
        if settings.clip:
            tables["clip_image"] = ((self.encoders.clip.width,), "float32")
        if settings.objects:
            tables |= {objects_table(keep): width for keep in settings.keep.values()}
        stage = Stage(
            kind="pictures",
            title="encoding pictures",
            unit="pictures",
            count=len(paths),
            item=picture,
            rows=DETECTED_PER_SHARD if self.encoders.detects else PICTURES_PER_SHARD,
            tables=tables,
        )
        return stage, own

    def _write_clip_texts(self, writer: StoreWriter, made: Path | None) -> dict[str, Any]:
        if not self.config.encoders.clip:
            for side, items in self._sides.items():
                writer.write(f"{side}_clip_text", np.zeros((len(items), 0), np.float32))
            return {}
        stage, rows = self.clip_texts()
        vectors = fill(stage, self.encoders, writer.scratch, made)["clip_text"].array()
        for side, own in rows.items():
            gather(writer, f"{side}_clip_text", vectors, own, vectors.shape[1])
        return {"clip_encoder": self._told("clip")}

    def _write_pictures(
        self, writer: StoreWriter, workdir: Path, made: Path | None
    ) -> dict[str, Any]:
        names = ("image", "clip_image", "objects")
        if not self.config.encoders.image:
            unseen = sum(mention.image is not None for mention in self.corpus.mentions)
            for side, items in self._sides.items():
                writer.write(f"{side}_has_image", np.zeros(len(items), bool))
                for name in names:
                    writer.write(f"{side}_{name}", np.zeros((len(items), 0), np.float32))
            return {"picture_counts": {"mention pictures without features (masked)": unseen}}
        stage, rows = self.pictures()
        tables = fill(stage, self.encoders, writer.scratch, made)
        found = {name: table.array() for name, table in tables.items()}
        status = np.asarray(found["status"])
        unread = np.flatnonzero(status >= images.READ).tolist()
        masked = [(stage.item(i).path, int(status[i])) for i in unread]
        _list_masked(workdir, masked)
        if len(masked) == stage.count:
            raise UserError(
                f"{self.config.data.root}: not one of its {stage.count} pictures can be read; the "
                f"first is {masked[0][0]} ({images.STATUSES[masked[0][1]]})"
            )
        keep = self.encoders.settings.keep
        for side, own in rows.items():
            read = np.where(own >= 0, status[np.maximum(own, 0)] < images.READ, False)
            writer.write(f"{side}_has_image", read)
            own = np.where(read, own, -1)
            for name in names:
                source = objects_table(keep[side]) if name == "objects" else name
                table = found.get(source)
                width = 0 if table is None else table.shape[1]
                gather(writer, f"{side}_{name}", table, own, width)
        counts = {
            f"pictures {text}": int(n)
            for text, n in zip(
                images.STATUSES, np.bincount(status, minlength=len(images.STATUSES)), strict=True
            )
            if n
        }
        named = {path: images.STATUSES[code] for path, code in masked[:LISTED]}
        return {
            "picture_counts": counts,
            "image_encoder": self._told("image"),
            "masked_pictures": {Path(path).name: why for path, why in named.items()},
        }

    def _write_precomputed(self, writer: StoreWriter) -> dict[str, Any]:
        name = self.config.encoders.pictures
        local = Path(self.config.data.root) / name
        ready = precomputed.load(local if local.exists() else Path(name))
        for side, items in self._sides.items():
            rows = ready.image_rows([item.image for item in items])
            field = "text" if side == "mention" else "description"
            texts = ready.text_rows([getattr(item, field) for item in items])
            writer.write(f"{side}_has_image", rows >= 0)
            for table, source, own in (
                ("image", ready.pooled, rows),
                ("clip_image", ready.unit_clip_image, rows),
                ("objects", ready.objects_mean, rows),
                ("clip_text", ready.unit_clip_text, texts),
            ):
                gather(writer, f"{side}_{table}", source, own, source.shape[1])
        return {"pictures": name}


def _list_masked(workdir: Path, masked: Sequence[tuple[str, int]]) -> None:
    """masked_pictures.tsv in the workdir: every picture that no encoder saw, and why."""
    path = workdir / "masked_pictures.tsv"
    if not masked:
        path.unlink(missing_ok=True)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(f"{file}\t{images.STATUSES[code]}\n" for file, code in masked), encoding="utf-8"
    )
