"""The store's tables, filled shard by shard from the encoders or from shards made elsewhere."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np

from data_pipeline.progress import Progress
from data_pipeline.schema import UserError
from data_pipeline.store.shard_table import ShardTable
from data_pipeline.store.writer import StoreWriter
from drin_jax.extract.encoding import Arrays, Encoders
from drin_jax.extract.stages import ROWS, Stage

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
