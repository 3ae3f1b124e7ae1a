"""Workdir and feature store of a run of several processes: made once, seen by all."""

from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax import extract
from drin_jax import workdir as folders
from drin_jax.parallel import multihost


def claim(workdir: Path, config: ConfigDict) -> None:
    """`workdir.claim` on process 0; then all see that they share it.

    Raises:
        UserError: as there, or a process is on another file system.
    """
    multihost.once("workdir", lambda: folders.claim(workdir, config), lambda: None)
    multihost.check_shared(workdir)


def prepare(config: ConfigDict, workdir: Path, needs: Collection[str]) -> Store:
    """`extract.prepare` on process 0; the others wait, for hours if need be, and open the same.

    Raises:
        UserError: as there, or a process does not see that store.
    """
    store = multihost.once(
        "features of process 0",
        lambda: extract.prepare(config, workdir, needs=needs),
        lambda: _open(config, workdir, needs),
    )
    held = {"splits": store.splits, "sizes": store.sizes, "made from": store.made_from}
    multihost.check_equal(f"feature store {store.path}", held)
    return store


def _open(config: ConfigDict, workdir: Path, needs: Collection[str]) -> Store:
    path = extract.store_path(config, workdir)
    if not path.exists():
        raise UserError(
            f"no feature store at {path.absolute()}, where process 0 has it; put it on a file "
            "system that all machines share, or a copy there"
        )
    own = config.copy_and_resolve_references()
    own.data.verify = False  # process 0 has read every byte
    return extract.prepare(own, workdir, needs=needs)
