"""A finished run's scorer as a folder that needs no model code: `python -m drin_jax.export`.

    import numpy as np
    from drin_jax import export
    from data_pipeline.loader import GraphTables
    from data_pipeline.schema import GraphSpec
    from data_pipeline.store.reader import Store

    scorer = export.load("exports/drin")
    spec = GraphSpec(r=20, needs=scorer.needs)
    tables = GraphTables(Store.open("runs/drin/store"), "test", spec)
    arrays = tables.batch(np.arange(8))  # or yours, named as in data_pipeline.schema.batch_shapes
    scores = scorer.scores(arrays)  # [8, 20], higher is better
    scores[~arrays["candidate_mask"]] = float("-inf")
    best = scores.argmax(1)  # slot of each mention's best candidate

The folder holds `scorer.jaxexport` (scores = f(parameters, arrays), serialized by `jax.export` for
several platforms and any batch), `params/` (orbax, a flat dict of names), `config.json` (the run's)
and `export.json` (what the arrays are, versions, checksums). Loading it needs jax, orbax and NumPy;
flax and `drin_jax.models` are not imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # jax loads only when there is work
    from drin_jax.export.scorer import Scorer


def load(folder: str | Path) -> "Scorer":
    """The exported scorer in `folder`, on this process's first device.

    Raises:
        UserError: it is no export, damaged, of another format version, of a jax that this one
            cannot read, or was not exported for this platform.
    """
    from drin_jax.export import scorer

    return scorer.load(Path(folder))
