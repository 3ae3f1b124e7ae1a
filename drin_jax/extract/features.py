"""Every feature table of a store: its stages run, and their rows put where they belong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.files import write_text
from data_pipeline.pictures import images, precomputed
from data_pipeline.schema import UserError
from drin_jax.extract.encoding import objects_table
from drin_jax.extract.stages import Stages
from drin_jax.extract.tables import Tables

LISTED = 20  # masked pictures named in the store's report; all of them in masked_pictures.tsv


def write(stages: Stages, tables: Tables, workdir: Path) -> dict[str, Any]:
    """Writes every feature table of both sides; returns what the store's report says of them."""
    for side, fields in (("entity", ("name", "description")), ("mention", ("text",))):
        told = [any(getattr(i, f).strip() for f in fields) for i in stages.sides[side]]
        tables.writer.write(f"{side}_has_text", np.array(told, bool))
    for stage in stages.texts():
        tables.fill(stage)
    report = {"text_encoder": _told(stages, "text")}
    if stages.config.encoders.pictures:
        return report | _write_precomputed(stages, tables)
    return report | _write_clip_texts(stages, tables) | _write_pictures(stages, tables, workdir)


def _told(stages: Stages, name: str) -> dict[str, Any]:
    encoder = getattr(stages.encoders, name)
    return {
        "name": stages.config.encoders[name],
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
    return {"clip_encoder": _told(stages, "clip")}


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
    _list_masked(workdir, masked)
    if len(masked) == stage.count:
        raise UserError(
            f"{stages.config.data.root}: not one of its {stage.count} pictures can be read; the "
            f"first is {masked[0][0]} ({masked[0][1]})"
        )
    keep = stages.encoders.settings.keep
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
        "image_encoder": _told(stages, "image"),
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


def _list_masked(workdir: Path, masked: Sequence[tuple[str, str]]) -> None:
    """masked_pictures.tsv in the workdir: every picture that no encoder saw, and why."""
    path = workdir / "masked_pictures.tsv"
    if not masked:
        path.unlink(missing_ok=True)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{file}\t{why}\n" for file, why in masked))
