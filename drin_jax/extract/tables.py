"""The store's tables, filled shard by shard from the encoders or from shards made elsewhere."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.progress import Progress
from data_pipeline.schema import UserError
from data_pipeline.store.shard_table import ShardTable
from data_pipeline.store.writer import StoreWriter
from drin_jax.extract.encoding import Arrays, Encoders

STAMP = "made_from"  # key of `Encoders.stamp` in a shard made elsewhere
ROWS = 2048  # texts of a shard, and rows copied at once


@dataclasses.dataclass(frozen=True)
class Stage:
    """One pass of the encoders over `count` items.

    Attributes:
        kind: of `Encoders.encode`.
        item: number -> item, made when it is needed: a million texts are not held at once.
        rows: items of a shard.
        tables: name -> shape of a row and dtype.
    """

    kind: str
    title: str
    unit: str
    count: int
    item: Callable[[int], Any]
    rows: int
    tables: Mapping[str, tuple[tuple[int, ...], str]]

    @property
    def shards(self) -> int:
        return -(-self.count // self.rows)

    def items(self, shard: int) -> list[Any]:
        """The items of one shard."""
        begin = shard * self.rows
        return [self.item(i) for i in range(begin, min(begin + self.rows, self.count))]


def fill(
    stage: Stage,
    encoders: Encoders,
    open_table: Callable[[str, Sequence[int], str, int], ShardTable],
    made: Path | None = None,
) -> dict[str, ShardTable]:
    """Runs what is missing of a stage; its finished tables.

    Args:
        open_table: `StoreWriter.shards`, or `.scratch` for tables that do not stay.
        made: folder of shards made elsewhere (`shard_file`); those that are there are taken.
    """
    tables = {
        name: open_table(name, (stage.count, *shape), dtype, stage.rows)
        for name, (shape, dtype) in stage.tables.items()
    }
    missing = sorted({shard for table in tables.values() for shard in table.missing()})
    todo = [s for s in missing if not (made and _taken(stage, encoders, tables, s, made))]
    left = sum(len(range(stage.count)[s * stage.rows : (s + 1) * stage.rows]) for s in todo)
    bar = Progress(stage.title, stage.count, stage.count - left, stage.unit)
    with bar if stage.count else contextlib.nullcontext():
        encoded = encoders.encode(stage.kind, map(stage.items, todo), left)
        for shard, arrays in zip(todo, encoded, strict=True):
            for name, table in tables.items():
                table.write(shard, arrays[name])
            bar.advance(len(arrays[next(iter(tables))]))
    for table in tables.values():
        table.finish()
    return tables


def shard_file(stage: str, shard: int) -> str:
    """File name of a shard made elsewhere."""
    return f"{stage}-{shard:06d}.npz"


def _taken(
    stage: Stage, encoders: Encoders, tables: dict[str, ShardTable], shard: int, made: Path
) -> bool:
    path = made / shard_file(stage.kind, shard)
    if not path.exists():
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in tables}
            stamp = str(file[STAMP])
    except Exception:  # whatever a cut file makes NumPy raise
        raise UserError(f"{path}: not a whole shard; delete it, or make it again") from None
    if stamp != encoders.stamp(stage.kind, stage.items(shard)):
        raise UserError(
            f"{path}: was made from other data, settings or weights; name another --shards folder"
        )
    for name, table in tables.items():
        table.write(shard, arrays[name])
    return True


def gather(
    writer: StoreWriter, name: str, source: np.ndarray | None, rows: np.ndarray, width: int
) -> None:
    """Writes table `name` [n, width]: `source`'s rows, zeros where `rows` [n] is below 0.

    In pieces, so that tables larger than memory pass through; finished pieces are kept.
    """
    table = writer.shards(name, (len(rows), width), "float32", ROWS)
    for shard in table.missing():
        own = rows[shard * ROWS : (shard + 1) * ROWS]
        piece = np.zeros((len(own), width), np.float32)
        if source is not None and width:
            piece[own >= 0] = source[own[own >= 0]]
        table.write(shard, piece)
    table.finish()


def unique(keys: Iterator[str | None]) -> tuple[dict[str, int], np.ndarray]:
    """Numbers of the distinct keys in order of appearance, and [n] the number of each, -1: None."""
    number: dict[str, int] = {}
    rows = [-1 if key is None else number.setdefault(key, len(number)) for key in keys]
    return number, np.array(rows, np.int64)
