"""Every feature table of a store: filled shard by shard, from the encoders or from shards made
elsewhere, and the rows put where they belong."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.files import write_text
from data_pipeline.pictures import images, precomputed
from data_pipeline.progress import Progress
from data_pipeline.schema import UserError
from data_pipeline.store.writer import ShardTable, StoreWriter
from drin_jax.extract.encoding import Arrays, Encoders
from drin_jax.extract.stages import ROWS, Stage, Stages, objects_table

LISTED = 20  # masked pictures named in the store's report; all of them in masked_pictures.tsv
STAMP = "made_from"  # key of `Encoders.stamp` in a shard made elsewhere


def shard_file(stage: str, shard: int) -> str:
    """File name of a shard made elsewhere."""
    return f"{stage}-{shard:06d}.npz"


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of a store in the making.

    Attributes:
        elsewhere: folder of shards made elsewhere (`shard_file`); those that are there are taken.
    """

    writer: StoreWriter
    encoders: Encoders
    elsewhere: Path | None = None

    def fill(self, stage: Stage, scratch: bool = False) -> dict[str, ShardTable]:
        """Runs what is missing of a stage; its finished tables. Those of `scratch` do not stay."""
        open_table = self.writer.scratch if scratch else self.writer.shards
        tables = {
            name: open_table(name, (stage.count, *shape), dtype, stage.rows)
            for name, (shape, dtype) in stage.tables.items()
        }
        missing = sorted({shard for table in tables.values() for shard in table.missing()})
        todo = [shard for shard in missing if not self._taken(stage, tables, shard)]
        left = sum(len(range(stage.count)[s * stage.rows : (s + 1) * stage.rows]) for s in todo)
        bar = Progress(stage.title, stage.count, stage.count - left, stage.unit)
        with bar if stage.count else contextlib.nullcontext():
            encoded = self.encoders.encode(stage.kind, map(stage.items, todo), left)
            for shard, arrays in zip(todo, encoded, strict=True):
                for name, table in tables.items():
                    table.write(shard, arrays[name])
                bar.advance(len(arrays[next(iter(tables))]))
        for table in tables.values():
            table.finish()
        return tables

    def _taken(self, stage: Stage, tables: dict[str, ShardTable], shard: int) -> bool:
        if self.elsewhere is None:
            return False
        path = self.elsewhere / shard_file(stage.kind, shard)
        if not path.exists():
            return False
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: Arrays = {name: file[name] for name in tables}
                stamp = str(file[STAMP])
        except Exception:  # whatever a cut file makes NumPy raise
            raise UserError(f"{path}: not a whole shard; delete it, or make it again") from None
        if stamp != self.encoders.stamp(stage.kind, stage.items(shard)):
            raise UserError(
                f"{path}: was made from other data, settings or weights; name another --shards "
                "folder"
            )
        for name, table in tables.items():
            table.write(shard, arrays[name])
        return True

    def gather(self, name: str, source: np.ndarray | None, rows: np.ndarray, width: int) -> None:
        """Writes table `name` [n, width]: `source`'s rows, zeros where `rows` [n] is below 0.

        In pieces, so that tables larger than memory pass through; finished pieces are kept.
        """
        table = self.writer.shards(name, (len(rows), width), "float32", ROWS)
        for shard in table.missing():
            own = rows[shard * ROWS : (shard + 1) * ROWS]
            piece = np.zeros((len(own), width), np.float32)
            if source is not None and width:
                piece[own >= 0] = source[own[own >= 0]]
            table.write(shard, piece)
        table.finish()


def write(stages: Stages, tables: Tables, workdir: Path) -> dict[str, Any]:
    """Writes every feature table of both sides; returns what the store's report says of them."""
    for side, fields in (("entity", ("name", "description")), ("mention", ("text",))):
        told = [any(getattr(i, f).strip() for f in fields) for i in stages.sides[side]]
        tables.writer.write(f"{side}_has_text", np.array(told, bool))
    for stage in stages.texts():
        tables.fill(stage)
    report = {"text_encoder": _told(stages.config, tables, "text")}
    if stages.config.encoders.pictures:
        return report | _write_precomputed(stages, tables)
    return report | _write_clip_texts(stages, tables) | _write_pictures(stages, tables, workdir)


def _told(config: ConfigDict, tables: Tables, name: str) -> dict[str, Any]:
    encoder = getattr(tables.encoders, name)
    return {
        "name": config.encoders[name],
        "fingerprint": encoder.fingerprint,
        "width": encoder.width,
    }


def _write_clip_texts(stages: Stages, tables: Tables) -> dict[str, Any]:
    if not stages.config.encoders.clip:
        for side, items in stages.sides.items():
            tables.writer.write(f"{side}_clip_text", np.zeros((len(items), 0), np.float32))
        return {}
    stage, rows = stages.clip_texts()
    vectors = tables.fill(stage, scratch=True)["clip_text"].array()
    for side, own in rows.items():
        tables.gather(f"{side}_clip_text", vectors, own, vectors.shape[1])
    return {"clip_encoder": _told(stages.config, tables, "clip")}


def _write_pictures(stages: Stages, tables: Tables, workdir: Path) -> dict[str, Any]:
    names, writer = ("image", "clip_image", "objects"), tables.writer
    if not stages.config.encoders.image:
        unseen = sum(mention.image is not None for mention in stages.corpus.mentions)
        for side, items in stages.sides.items():
            writer.write(f"{side}_has_image", np.zeros(len(items), bool))
            for name in names:
                writer.write(f"{side}_{name}", np.zeros((len(items), 0), np.float32))
        return {"picture_counts": {"mention pictures without features (masked)": unseen}}
    stage, rows = stages.pictures()
    found = {name: table.array() for name, table in tables.fill(stage, scratch=True).items()}
    status = np.asarray(found["status"])
    unread = np.flatnonzero(status >= images.READ).tolist()
    masked = [(stage.item(i).path, images.STATUSES[status[i]]) for i in unread]
    # Every picture that no encoder saw, and why.
    listing = workdir / "masked_pictures.tsv"
    if masked:
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(listing, "".join(f"{file}\t{why}\n" for file, why in masked))
    else:
        listing.unlink(missing_ok=True)
    if len(masked) == stage.count:
        raise UserError(
            f"{stages.config.data.root}: not one of its {stage.count} pictures can be read; the "
            f"first is {masked[0][0]} ({masked[0][1]})"
        )
    keep = stages.settings.keep
    for side, own in rows.items():
        read = np.where(own >= 0, status[np.maximum(own, 0)] < images.READ, False)
        writer.write(f"{side}_has_image", read)
        own = np.where(read, own, -1)
        for name in names:
            table = found.get(objects_table(keep[side]) if name == "objects" else name)
            tables.gather(f"{side}_{name}", table, own, 0 if table is None else table.shape[1])
    numbers = np.bincount(status, minlength=len(images.STATUSES)).tolist()
    named = zip(images.STATUSES, numbers, strict=True)
    return {
        "picture_counts": {f"pictures {text}": n for text, n in named if n},
        "image_encoder": _told(stages.config, tables, "image"),
        "masked_pictures": {Path(path).name: why for path, why in masked[:LISTED]},
    }


def _write_precomputed(stages: Stages, tables: Tables) -> dict[str, Any]:
    name = stages.config.encoders.pictures
    local = Path(stages.config.data.root) / name
    ready = precomputed.load(local if local.exists() else Path(name))
    for side, items in stages.sides.items():
        rows = ready.image_rows([item.image for item in items])
        field = "text" if side == "mention" else "description"
        texts = ready.text_rows([getattr(item, field) for item in items])
        tables.writer.write(f"{side}_has_image", rows >= 0)
        for table, source, own in (
            ("image", ready.pooled, rows),
            ("clip_image", ready.unit_clip_image, rows),
            ("objects", ready.objects_mean, rows),
            ("clip_text", ready.unit_clip_text, texts),
        ):
            tables.gather(f"{side}_{table}", source, own, source.shape[1])
    return {"pictures": name}
