"""An export against the model that its parameters and config build."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from drin_jax import workdir
from drin_jax.export.artefact import score_function
from drin_jax.export.scorer import load
from drin_jax.training.setup import build_model

# What is allowed: two programs of the same arithmetic in float32, or with bfloat16's 8 bits.
LIMITS = {"float32": 1e-6, "bfloat16": 2e-2}
SIZES = ({"b": 5, "r": 23, "s": 12, "q": 9}, {"b": 1, "r": 1, "s": 1, "q": 1})


def check(folder: Path) -> tuple[float, float, int]:
    """The largest difference of scores on fixed random batches, its limit, and how many scores.

    Raises:
        UserError: the export cannot be loaded.
        UserError: its config is of another version of this program.
    """
    scorer = load(folder)
    content = scorer.manifest
    config = workdir.read_config(folder)
    widths = {name: content["widths"][name] for name in ("text_width", "image_width")}
    model = jax.jit(score_function(lambda: build_model(config, **widths), content["gold_slot"]))
    worst, count = 0.0, 0
    for sizes in SIZES:
        arrays = random_batch(content["inputs"], sizes)
        ours = scorer.scores(arrays)
        theirs = np.asarray(model(scorer.params, arrays))
        difference = np.nan_to_num(np.abs(ours - theirs), nan=np.inf)
        worst = max(worst, float(np.max(difference)))
        count += ours.size
    return worst, LIMITS[content["dtype"]], count


def random_batch(
    inputs: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int], seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of these inputs: normal features, a fifth of all flags off, spans within the tokens.

    Args:
        inputs: of `export.json`.
        sizes: of each symbol in their shapes.
    """
    rng = np.random.default_rng(seed)

    def array(name: str, shape: list[int], dtype: str) -> np.ndarray:
        if dtype == "bool":
            return rng.random(shape) < 0.8
        if name == "mention_span":
            begin = rng.integers(0, sizes["s"], shape[0])
            return np.stack([begin, rng.integers(begin + 1, sizes["s"] + 1)], 1)
        if dtype == "int32":  # bytes of names, and padding
            return rng.integers(0, 257, shape)
        return rng.standard_normal(shape)

    def resolved(shape: list[int | str]) -> list[int]:
        return [sizes[size] if isinstance(size, str) else size for size in shape]

    return {
        name: array(name, resolved(spec["shape"]), spec["dtype"]).astype(spec["dtype"])
        for name, spec in inputs.items()
    }
