"""Where a run's feature tables live: on the devices if they fit, else read from the store."""

import dataclasses
from collections.abc import Sequence

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training import device_tables
from drin_jax.training.device_tables import SHARE_OF_FREE, DeviceTables, Layout

SPLITS = ("train", "valid", "test")
KINDS = ("auto", "device", "bfloat16", "sharded", "host")
MEANING = {
    "device": "on every device, float32",
    "bfloat16": "on every device, features in bfloat16",
    "sharded": "features spread over the devices, float32",
    "host": "read from the store, ahead of each step",
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """What was chosen. `kind` is one of KINDS but "auto"; `layout` is None for "host"; `needed` and
    `free` are bytes on each device, needed for the tables and free before they are uploaded."""

    kind: str
    layout: Layout | None
    needed: int
    free: int

    def describe(self) -> str:
        """One line for the user."""
        numbers = f"{self.needed / 1e9:.2f} GB of {self.free / 1e9:.2f} GB free"
        if self.layout is None:
            numbers = f"on a device they would take {numbers}"
        return f"tables {MEANING[self.kind]}: {numbers}"


def choose(
    kind: str,
    store: Store,
    parallel: DataParallel,
    *,
    r: int,
    gold_slot: bool,
    needs: Sequence[str],
) -> Placement:
    """The placement of this kind, or for "auto" the first that fits, in the order of KINDS.

    Raises:
        UserError: an unknown kind, one that `parallel.impl` has not, or tables that do not fit.
    """
    if kind not in KINDS:
        raise UserError(f"data.tables is {kind!r}; known are {', '.join(KINDS)}")
    if parallel.impl == "pmap" and kind not in ("auto", "host"):
        raise UserError(
            f"data.tables is {kind!r}, but parallel.impl 'pmap' reads batches from the store; "
            "use data.tables='host' or parallel.impl='shard_map'"
        )
    layouts = {
        "device": Layout(parallel=parallel),
        "bfloat16": Layout("bfloat16", parallel),
        "sharded": Layout(parallel=parallel, spread=True),
    }
    needed = {
        name: DeviceTables.bytes(
            store, SPLITS, r=r, gold_slot=gold_slot, needs=needs, layout=layout
        )
        for name, layout in layouts.items()
    }
    free = parallel.least(device_tables.free_bytes())
    fits = [name for name in layouts if needed[name] <= SHARE_OF_FREE * free]
    if parallel.impl == "pmap" or kind == "host" or (kind == "auto" and not fits):
        return Placement("host", None, needed["device"], free)
    if kind == "auto":
        kind = fits[0]
    elif kind not in fits:
        raise UserError(
            f"data.tables is {kind!r}: the tables take {needed[kind] / 1e9:.2f} GB a device, which "
            f"has {free / 1e9:.2f} GB free, of which tables may take {SHARE_OF_FREE:.0%}; use "
            "data.tables='auto', which reads from the store what does not fit, or lower graph.r"
        )
    return Placement(kind, layouts[kind], needed[kind], free)
