"""Batches at the paper's widths, of random features."""

import numpy as np

from data_pipeline.schema import batch_shapes

TEXT, IMAGE, WIDTH, LAYERS = 768, 2048, 768, 2


def random_batch(b: int, r: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A full batch: every vertex present, gold anywhere."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in batch_shapes(b, r, TEXT, IMAGE).items():
        if dtype == "bool":
            arrays[name] = np.ones(shape, bool)
        elif dtype == "float32":
            arrays[name] = rng.standard_normal(shape, dtype=np.float32)
    arrays["edges"] = np.tanh(arrays["edges"])
    arrays["gold"] = rng.integers(0, r, b, dtype=np.int32)
    return arrays
