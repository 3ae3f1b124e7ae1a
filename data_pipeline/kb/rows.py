"""Rows of a knowledge base: read from JSON lines, CSV or Parquet, kept as memory-mapped columns.

    {"id", "name"} and, where there is one, "aliases": [name, …], "description", "type",
    "popularity": number, "image": path or "images": [path, …], best first

Pictures are relative to the folder of the file. The columns of a table have these names; in CSV,
aliases and images are divided by "|". On disk the rows are one Arrow file, opened memory-mapped.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.files import sha256, write_whole
from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import Entity, UserError, reason

NEEDED = ("id", "name")
LISTS = ("aliases", "images")
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
DIVIDER = "|"  # of a list in a cell of CSV


def read(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Entity]]:
    """The entities of a file with their places, a few in memory at a time; the file's SHA-256 is
    added to `sources`.

    Raises:
        UserError: the file is missing, of another kind, not a row long, or a row is not what it
            should be; with its place.
    """
    kinds = {".jsonl": _json_lines, ".json": _json_lines, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in kinds:
        raise UserError(f"{path}: is none of {', '.join(kinds)}")
    empty = True
    for where, row in kinds[path.suffix.lower()](path, sources):
        empty = False
        yield where, raw_rows.entity(row, path.parent, where)
    if empty:
        raise UserError(f"{path} holds not one row")


def _json_lines(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return raw_files.json_lines(path, sources, NEEDED)


def _csv(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import csv

    # Left alone, "007" would become the number 7.
    kept = csv.ConvertOptions(
        column_types=dict.fromkeys(COLUMNS.names, pa.string()) | {"popularity": pa.float64()},
        strings_can_be_null=True,
        null_values=[""],
    )
    parsed = csv.ParseOptions(newlines_in_values=True)
    for where, row in _batches(
        path, sources, lambda: csv.open_csv(path, parse_options=parsed, convert_options=kept)
    ):
        lists = {name: row[name].split(DIVIDER) for name in LISTS if row.get(name)}
        yield where, row | {"name": row["name"] or ""} | lists


def _parquet(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import parquet

    return _batches(path, sources, lambda: parquet.ParquetFile(path).iter_batches())


def _batches(
    path: Path, sources: dict[str, str], start: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of Arrow's batches."""
    number = 0
    try:
        for batch in start():
            names = batch.schema.names
            if lacking := [name for name in NEEDED if name not in names]:
                raise UserError(
                    f"{path}: has no column {' and no column '.join(lacking)}; it has "
                    f"{', '.join(names[:9])}"
                )
            known = batch.select([name for name in names if name in COLUMNS.names])
            for row in known.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
        sources[path.name] = sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None


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


def write(path: Path, rows: pa.Table) -> None:
    """A whole Arrow file. UserError where it cannot be written."""

    def put(file: Any) -> None:
        with pa.ipc.new_file(file, COLUMNS) as writer:
            writer.write_table(rows.combine_chunks())

    write_whole(path, put)


def open_table(path: Path) -> pa.Table:
    """The rows of a file that `write` wrote, memory-mapped. UserError where it is another."""
    try:
        rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: is missing, cut or foreign ({reason(error)})") from None
    if rows.schema != COLUMNS:
        raise UserError(f"{path}: has other columns than a knowledge base's rows")
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
