"""Run by multiprocess_test.py in processes of its own: what a checkpoint is once it is restored.

    python -m tests.support.restored_parameters WORKDIR [COORDINATOR PROCESSES PROCESS]

Prints the step, and for every device of this process the SHA-256 of the state's copy there.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from data_pipeline.store.reader import Store
from drin_jax.training.checkpoint import Checkpoints
from drin_jax.training.setup import set_up
from drin_jax.training.step import create_state
from drin_jax.workdir import read_config


def copies(state: jax.Array) -> list[str]:
    """The digest of each copy on this process's devices."""
    leaves = jax.tree.leaves(state)
    digests = []
    for shards in zip(*(leaf.addressable_shards for leaf in leaves), strict=True):
        parts = b"".join(np.asarray(shard.data).tobytes() for shard in shards)
        digests.append(hashlib.sha256(parts).hexdigest())
    return digests


def restored(workdir: Path) -> dict[str, Any]:
    """Of the newest checkpoint, on all devices of this process."""
    config = read_config(workdir)
    config.seed = 99  # what is restored is not what the run began with
    setup = set_up(config, Store.open(config.data.store))
    like = setup.parallel.replicate(create_state(setup.params, optax.adam(1e-3)))
    checkpoints = Checkpoints(workdir / "checkpoints")
    step, state, _ = checkpoints.restore(like)
    checkpoints.close()
    return {"step": step, "unlike": copies(like), "copies": copies(state)}


def main(workdir: str, *place: str) -> None:
    if place:
        jax.distributed.initialize(place[0], int(place[1]), int(place[2]))
    print(json.dumps(restored(Path(workdir))))


if __name__ == "__main__":
    main(*sys.argv[1:])
