"""Rows of a knowledge base as columns: one Arrow file a segment, opened memory-mapped."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.schema import Entity, UserError, reason

COLUMNS = pa.schema(
    [
        ("id", pa.large_string()),
        ("name", pa.large_string()),
        ("aliases", pa.large_list(pa.large_string())),
        ("description", pa.large_string()),
        ("type", pa.large_string()),
        ("popularity", pa.float64()),
        ("images", pa.large_list(pa.large_string())),
    ]
)


def table(entities: Iterable[Entity], root: str) -> pa.Table:
    """The columns of these entities; pictures below the folder `root` are kept relative to it."""
    fields: list[list[Any]] = [[] for _ in COLUMNS]
    below = os.path.join(os.path.abspath(root), "") if root else None
    for one in entities:
        shown = [image for image in (one.image, *one.more_images) if image]
        shown = [os.path.abspath(image).removeprefix(below or "") for image in shown]
        values = (one.id, one.name, one.aliases, one.description, one.type, one.popularity, shown)
        for field, value in zip(fields, values, strict=True):
            field.append(value)
    columns = [pa.array(v, field.type) for v, field in zip(fields, COLUMNS, strict=True)]
    return pa.table(columns, COLUMNS)


def digest(rows: pa.Table) -> str:
    """SHA-256 over what the rows say, but for where pictures lie."""
    whole = hashlib.sha256(str(rows.num_rows).encode())
    for name in COLUMNS.names:
        if name != "images":
            # Copied, so that equal columns have equal buffers.
            fresh = pa.concat_arrays([*rows[name].chunks, pa.array([], rows[name].type)])
            for buffer in fresh.buffers():
                whole.update(buffer if buffer is not None else b"-")
    return whole.hexdigest()


def digest_of_images(rows: pa.Table) -> str:
    """SHA-256 over where their pictures lie."""
    return hashlib.sha256(json.dumps(rows["images"].to_pylist()).encode()).hexdigest()


def put(file: Any, rows: pa.Table) -> None:
    """Write the rows into an open file, as `open_table` reads them."""
    with pa.ipc.new_file(file, COLUMNS) as writer:
        writer.write_table(rows.combine_chunks())


def open_table(path: Path) -> pa.Table:
    """The rows of a file that `put` wrote, memory-mapped. UserError where it is another."""
    try:
        rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if rows.schema == COLUMNS:
            rows.validate(full=True)  # or reading a cell could end the process
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is missing, cut or foreign ({reason(error)})") from None
    if rows.schema != COLUMNS:
        raise UserError(f"{path}: has other columns than a knowledge base's rows")
    for name, column in zip(COLUMNS.names, rows.columns, strict=True):
        lists = pa.types.is_large_list(column.type)
        nulls = column.null_count
        if lists:
            nulls += pc.list_flatten(column).null_count  # pyright: ignore[reportAttributeAccessIssue]
        if nulls and name != "popularity":
            raise UserError(f"{path}: lacks {name} in a row")
    return rows


def entities(rows: pa.Table, root: str, chosen: np.ndarray | None = None) -> Iterator[Entity]:
    """The entities of all or of these rows."""
    some = rows if chosen is None else rows.take(pa.array(chosen))
    for batch in some.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            shown = [os.path.join(root, image) for image in row["images"]]
            yield Entity(
                id=row["id"],
                name=row["name"],
                description=row["description"],
                image=shown[0] if shown else None,
                aliases=tuple(row["aliases"]),
                type=row["type"],
                popularity=row["popularity"],
                more_images=tuple(shown[1:]),
            )
