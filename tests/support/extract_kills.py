"""Kills an extraction at random moments until it is through: run by `extract_kills_test`.

python -m tests.support.extract_kills WORLD WORKDIR [RENAMED]

runs one extraction with small shards, which logs every shard once it is in the store, and kills
itself when it has renamed a folder to RENAMED.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from data_pipeline.arrays.growing import ShardTable
from drin_jax.extract import features, preparation, stages
from tests.support import picture_world

TEXTS, PICTURES = 5, 3


def child(world: Path, workdir: Path) -> None:
    """Extracts with shards of a few items; each is logged after it was written."""
    features.ROWS = stages.ROWS = TEXTS
    stages.PICTURES_PER_SHARD = PICTURES
    log = os.open(workdir / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    real = ShardTable.write

    def logged(self: ShardTable, index: int, rows: Any) -> None:
        fresh = index in self.missing()
        real(self, index, rows)
        if fresh:
            os.write(log, f"{self._target.parent.name}/{self._target.stem} {index}\n".encode())

    ShardTable.write = logged  # type: ignore[method-assign]
    preparation.prepare(picture_world.config(world, world / "encoders"), workdir)
    os.write(log, b"done\n")


def die_when_renamed(name: str) -> None:
    """From here on the process kills itself once it has renamed a folder so."""
    real = os.rename

    def rename(old: Path, new: Path) -> None:
        real(old, new)
        if new.name == name:
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = rename  # type: ignore[assignment]


if __name__ == "__main__":
    for name in sys.argv[3:]:
        die_when_renamed(name)
    child(Path(sys.argv[1]), Path(sys.argv[2]))
