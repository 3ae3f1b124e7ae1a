"""How near two computations of the same floats have to come to each other."""

from typing import Any

import numpy as np

# Of an array's largest magnitude. Kernels for AVX2, AVX-512 and ARM add float32 sums in different
# orders: 2.7e-6 of the scale is the most seen, through CLIP's twelve layers. A wrong constant, norm
# or mask shows from 1e-3 on, products in bfloat16 at 4e-3.
FLOAT32 = 2e-5
# Of losses along a training: Adam divides gradients by their own size, the rounding of the smallest
# with them, and every step goes on from there.
TRAINED = 1e-4


def assert_close(ours: Any, theirs: Any, what: str = "", limit: float = FLOAT32) -> None:
    """Fails unless max |ours - theirs| <= limit * max |theirs|, and the shapes are the same."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, what
    if theirs.size:
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit * scale, err_msg=what)
