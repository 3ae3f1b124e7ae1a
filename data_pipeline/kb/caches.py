"""KB/index/: what is kept of a knowledge base so that searching it begins at once. Whoever finds
his own missing, damaged or of other segments makes it anew, while he holds the folder's lock."""

import os
import shutil
import time
from pathlib import Path
from typing import TextIO

from data_pipeline.files import hold
from data_pipeline.schema import UserError

PATIENCE = 5.0  # seconds to wait for another process that is writing an index


def folder(path: Path | str) -> Path:
    """Where the knowledge base in folder `path` keeps them."""
    return Path(path) / "index"


def in_turn(path: Path | str) -> TextIO:
    """The lock of `folder(path)`, which is made if it is missing; closing lets it go.

    Raises:
        UserError, OSError: another process holds it for too long, or the folder cannot be written.
    """
    where = folder(path)
    where.mkdir(exist_ok=True)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return hold(where / "lock")
        except UserError:  # another process is at it, perhaps with the same
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def drop(path: Path) -> None:
    """Forget the indexes of the knowledge base in this folder."""
    shutil.rmtree(folder(path), ignore_errors=True)
    if os.path.exists(folder(path)):
        raise UserError(f"{folder(path)}: cannot be deleted")
