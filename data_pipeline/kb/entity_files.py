"""Entities from a file: JSON lines, CSV or Parquet.

    {"id", "name"} and, where there is one, "aliases": [name, …], "description", "type",
    "popularity": number, "image": path or "images": [path, …], best first

Pictures are relative to the folder of the file. The columns of a table have these names; in CSV,
aliases and images are divided by "|".
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipeline.files import sha256
from data_pipeline.kb.rows import COLUMNS
from data_pipeline.output import say
from data_pipeline.readers import raw_files, raw_rows
from data_pipeline.schema import Entity, UserError, reason

NEEDED = ("id", "name")
LISTS = ("aliases", "images")
READ = (*COLUMNS.names, "image")  # columns of a file; others are ignored
DIVIDER = "|"  # of a list in a cell of CSV


def read(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Entity]]:
    """The entities of a file with their places, a few in memory at a time; the file's SHA-256 is
    added to `sources`.

    Raises:
        UserError: the file is missing, of another kind, not a row long, or a row is not what it
            should be; with its place.
    """
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path}: is none of {', '.join(KINDS)}")
    empty = True
    for where, row in KINDS[path.suffix.lower()](path, sources):
        empty = False
        yield where, raw_rows.entity(row, path.parent, where)
    if empty:
        raise UserError(f"{path} holds not one row")


def _json_lines(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return raw_files.json_lines(path, sources, NEEDED)


def _csv(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import csv

    parsed = csv.ParseOptions(newlines_in_values=True)

    def start() -> Any:
        names = csv.open_csv(path, parse_options=parsed).schema.names
        # Left alone, "007" would become the number 7, and a column of nobody's be refused.
        kept = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()) | {"popularity": pa.float64()},
            include_columns=_known(path, names),
            strings_can_be_null=True,
            null_values=[""],
        )
        return csv.open_csv(path, parse_options=parsed, convert_options=kept)

    for where, row in _batches(path, sources, start):
        lists = {name: row[name].split(DIVIDER) for name in LISTS if row.get(name)}
        yield where, row | {"name": row["name"] or ""} | lists


def _parquet(path: Path, sources: dict[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import parquet

    def start() -> Any:
        file = parquet.ParquetFile(path)
        return file.iter_batches(columns=_known(path, file.schema_arrow.names))

    return _batches(path, sources, start)


def _known(path: Path, names: Sequence[str]) -> list[str]:
    """Those of a file's columns that are read. UserError where one is missing, or there twice."""
    if lacking := [name for name in NEEDED if name not in names]:
        divided = "; columns are divided by commas" * any(";" in name for name in names)
        raise UserError(
            f"{path}: has no column {' and no column '.join(lacking)}; it has "
            f"{', '.join(name if name == name.strip() else repr(name) for name in names[:9])}"
            f"{divided}"
        )
    known = [name for name in names if name in READ]
    if others := [name for name in names if name not in READ]:
        say(f"{path}: not read: {', '.join(others[:9])}")
    if twice := [name for name in known if known.count(name) > 1]:
        raise UserError(f"{path}: has the column {twice[0]} twice; leave one")
    return known


def _batches(
    path: Path, sources: dict[str, str], start: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of Arrow's batches."""
    number = 0
    try:
        for batch in start():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
        sources[path.name] = sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None


# Ending of a file -> what reads its rows.
KINDS = {".jsonl": _json_lines, ".json": _json_lines, ".csv": _csv, ".parquet": _parquet}
