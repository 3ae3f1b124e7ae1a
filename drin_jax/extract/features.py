"""Every feature table of a side: filled shard by shard, from the encoders or from shards made
elsewhere, and the rows put where they belong."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.arrays.growing import GrowingFolder, ShardTable
from data_pipeline.files import write_text
from data_pipeline.output import Progress
from data_pipeline.pictures import images
from data_pipeline.pictures.precomputed import Precomputed
from data_pipeline.schema import PictureFile, UserError
from data_pipeline.store.reader import Store
from data_pipeline.store.unkept import HeldTable, UnkeptStore
from drin_jax.extract.items import objects_table
from drin_jax.extract.stages import ROWS, Stage, Stages

LISTED = 20  # masked pictures named in the store's report; all: masked_SIDE_pictures.tsv
STAMP = "made_from"  # key of `Encoders.stamp` in a shard made elsewhere


def shard_file(stage: str, shard: int) -> str:
    """File name of a shard made elsewhere."""
    return f"{stage}-{shard:06d}.npz"


@dataclasses.dataclass(frozen=True)
class Features:
    """The feature tables of one side: of a knowledge base's segment, of a store in the making, or
    of new mentions in memory.

    Attributes:
        elsewhere: folder of shards made elsewhere (`shard_file`); those that are there are taken.
        loud: shows progress.
    """

    stages: Stages
    writer: GrowingFolder | UnkeptStore
    elsewhere: Path | None = None
    loud: bool = True

    def fill(self, stage: Stage, scratch: bool = False) -> dict[str, ShardTable | HeldTable]:
        """Runs what is missing of a stage; its finished tables. Those of `scratch` do not stay."""
        tables = {
            name: self.writer.shards(name, (stage.count, *shape), dtype, stage.rows, scratch)
            for name, (shape, dtype) in stage.tables.items()
        }
        missing = sorted({shard for table in tables.values() for shard in table.missing()})
        todo = [shard for shard in missing if not self._taken(stage, tables, shard)]
        left = sum(len(stage.shard(number)) for number in todo)
        title, unit = stage.name.replace("_", " "), stage.name.split("_")[-1]
        begun = stage.count - left
        bar = Progress(f"encoding {title}", stage.count, begun, unit, loud=self.loud)
        with bar if stage.count else contextlib.nullcontext():
            shards = (stage.items(stage.shard(number)) for number in todo)
            encoded = self.stages.encoders.encode(stage.kind, shards, left)
            for shard, arrays in zip(todo, encoded, strict=True):
                for name, table in tables.items():
                    table.write(shard, arrays[name])
                bar.advance(len(stage.shard(shard)))
        for table in tables.values():
            table.finish()
        return tables

    def _taken(
        self, stage: Stage, tables: Mapping[str, ShardTable | HeldTable], shard: int
    ) -> bool:
        path = (self.elsewhere or Path()) / shard_file(stage.name, shard)
        if self.elsewhere is None or not path.exists():
            return False
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in tables}
                stamp = str(file[STAMP])
        except Exception:  # whatever a cut file makes NumPy raise
            raise UserError(f"{path}: not a whole shard; delete it, or make it again") from None
        if stamp != self.stages.encoders.stamp(stage.kind, stage.items(stage.shard(shard))):
            raise UserError(
                f"{path}: was made from other data, settings or weights; name another --shards "
                "folder"
            )
        for name, table in tables.items():
            table.write(shard, arrays[name])
        return True

    def gather(self, name: str, source: np.ndarray | None, rows: np.ndarray) -> None:
        """Writes table `name` [n, width]: `source`'s rows, zeros where `rows` [n] is below 0; of
        width 0 without a source.

        In pieces, so that tables larger than memory pass through; finished pieces are kept.
        """
        width = 0 if source is None else source.shape[1]
        table = self.writer.shards(name, (len(rows), width), "float32", ROWS)
        for shard in table.missing():
            own = rows[shard * ROWS : (shard + 1) * ROWS]
            piece = np.zeros((len(own), width), np.float32)
            if source is not None and width:
                piece[own >= 0] = source[own[own >= 0]]
            table.write(shard, piece)
        table.finish()

    def write(self, workdir: Path | None = None) -> dict[str, Any]:
        """Writes every feature table of the side; what the report says of them. Pictures that no
        encoder saw are listed in `workdir`."""
        side = self.stages.side
        fields = {"entity": ("name", "description"), "mention": ("text",)}[side]
        told = [any(getattr(i, field).strip() for field in fields) for i in self.stages.items]
        self.writer.write(f"{side}_has_text", np.array(told, bool))
        self.fill(self.stages.texts())
        report = self._told("text")
        if self.stages.ready:
            return report | self._write_ready(self.stages.ready)
        return report | self._write_clip_texts() | self._write_pictures(workdir)

    def write_tokens(self) -> dict[str, Any]:
        """Writes the vectors of all tokens of the mentions; what the report says of them."""
        stage, offsets, spans = self.stages.tokens()
        self.writer.write("mention_token_offsets", offsets)
        self.writer.write("mention_span", spans)
        self.fill(stage)
        limit, longest = self.stages.config.encoders.max_tokens, int(np.diff(offsets).max())
        return {"tokens": {"limit": limit, "tokens": stage.count, "longest": longest}}

    def write_regions(self, store: Store) -> dict[str, Any]:
        """Writes the regions of the mentions' pictures; what the report says of them.

        Args:
            store: that has the features of the whole pictures.
        """
        stage, rows = self.stages.regions(store)
        self.writer.write("mention_region_row", rows)
        self.fill(stage)
        return {"regions": {"pictures": stage.count}}

    def _told(self, name: str) -> dict[str, Any]:
        encoder = getattr(self.stages.encoders, name)
        facts = {"fingerprint": encoder.fingerprint, "width": encoder.width}
        return {f"{name}_encoder": {"name": self.stages.config.encoders[name]} | facts}

    def _write_empty(self, *names: str) -> None:
        for name in names:
            empty = np.zeros((len(self.stages.items), 0), np.float32)
            self.writer.write(f"{self.stages.side}_{name}", empty)

    def _write_clip_texts(self) -> dict[str, Any]:
        if not self.stages.config.encoders.clip:
            self._write_empty("clip_text")
            return {}
        stage, rows = self.stages.clip_texts()
        vectors = self.fill(stage, scratch=True)["clip_text"].array()
        self.gather(f"{self.stages.side}_clip_text", vectors, rows)
        return self._told("clip")

    def _write_pictures(self, workdir: Path | None) -> dict[str, Any]:
        stages, side, names = self.stages, self.stages.side, ("image", "clip_image", "objects")
        if not stages.config.encoders.image:
            self.writer.write(f"{side}_has_image", np.zeros(len(stages.items), bool))
            self._write_empty(*names)
            unseen = sum(item.image is not None for item in stages.items)
            told = f"{side} pictures without features (masked)"
            return {"picture_counts": {told: unseen} if side == "mention" else {}}
        stage, own = stages.pictures()
        filled = self.fill(stage, scratch=True)
        found: dict[str, Any] = {name: table.array() for name, table in filled.items()}
        status = np.asarray(found["status"])
        unread = np.flatnonzero(status >= images.READ).tolist()
        masked = [
            (stage.items(range(i, i + 1))[0].path, images.STATUSES[status[i]]) for i in unread
        ]
        if workdir is not None:
            _list(workdir, f"masked_{side}_pictures.tsv", masked)
        there = np.append(status, images.READ)[own] < images.READ  # -1: none
        self.writer.write(f"{side}_has_image", there)
        found["objects"] = found.get(objects_table(stages.encoders.keep[side]))
        for name in names:
            self.gather(f"{side}_{name}", found.get(name), np.where(there, own, -1))
        numbers = np.bincount(status, minlength=len(images.STATUSES)).tolist()
        named = zip(images.STATUSES, numbers, strict=True)
        return self._told("image") | {
            "picture_counts": {f"pictures {text}": n for text, n in named if n},
            "masked_pictures": {_name(path): why for path, why in masked[:LISTED]},
        }

    def _write_ready(self, ready: Precomputed) -> dict[str, Any]:
        side, items = self.stages.side, self.stages.items
        rows = ready.image_rows([item.image for item in items])
        field = "text" if side == "mention" else "description"
        texts = ready.text_rows([getattr(item, field) for item in items])
        self.writer.write(f"{side}_has_image", rows >= 0)
        self.gather(f"{side}_image", ready.pooled, rows)
        self.gather(f"{side}_clip_image", ready.unit_clip_image, rows)
        self.gather(f"{side}_objects", ready.objects_mean, rows)
        self.gather(f"{side}_clip_text", ready.unit_clip_text, texts)
        return {"pictures": self.stages.config.encoders.pictures}


def _name(file: PictureFile) -> str:
    return "a picture" if isinstance(file, bytes) else Path(file).name


def _list(workdir: Path, name: str, masked: Sequence[tuple[PictureFile, str]]) -> None:
    """Every picture that no encoder saw, and why, in a file of the workdir."""
    listing = workdir / name
    if masked:
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(listing, "".join(f"{file!s}\t{why}\n" for file, why in masked))
    else:
        listing.unlink(missing_ok=True)
