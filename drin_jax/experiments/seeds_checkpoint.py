"""What a group of seeds' runs needs to go on, in one file that is replaced whole.

One NumPy archive instead of an orbax folder: for runs of a few seconds orbax costs more than the
training.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline.schema import UserError

RECORDS = "records"


class SeedsCheckpoint:
    """The checkpoint of the runs with these seeds, in `folder`."""

    def __init__(self, folder: Path, seeds: Sequence[int]):
        last = f"-{seeds[-1]}" if len(seeds) > 1 else ""
        self.path = folder / f"seeds_{seeds[0]}{last}.npz"
        self._seeds = list(seeds)

    def save(self, tree: Any, records: list[dict[str, Any]]) -> None:
        """Keep a tree of arrays, and a JSON record with a field "seed" of each run."""
        arrays: dict[str, Any] = {RECORDS: np.frombuffer(json.dumps(records).encode(), np.uint8)}
        for i, leaf in enumerate(jax.device_get(jax.tree.leaves(tree))):
            arrays[f"leaf_{i}"] = leaf
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(self.path)

    def restore(self, like: Any) -> tuple[Any, list[dict[str, Any]]] | None:
        """The tree, with the structure of `like`, and the records; None where nothing is kept.

        Raises:
            UserError: the file is damaged, or holds other seeds or other arrays.
        """
        if not self.path.exists():
            return None
        leaves, structure = jax.tree.flatten(like)
        try:
            with np.load(self.path) as archive:
                records = json.loads(archive[RECORDS].tobytes())
                kept = [archive[f"leaf_{i}"] for i in range(len(archive.files) - 1)]
            seeds = [record["seed"] for record in records]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self.path}: unreadable checkpoint ({type(error).__name__}); delete it to train "
                "these seeds anew"
            ) from None
        shapes = [(x.shape, x.dtype) for x in kept]
        if seeds != self._seeds or shapes != [(x.shape, x.dtype) for x in leaves]:
            raise UserError(
                f"{self.path}: a checkpoint of seeds {seeds} of another model or number together; "
                f"delete it to train seeds {self._seeds}, or use another folder"
            )
        return jax.tree.unflatten(structure, [jax.numpy.asarray(x) for x in kept]), records
