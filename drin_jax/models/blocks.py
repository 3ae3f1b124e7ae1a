"""Work on every candidate of a batch, cut into blocks of mentions that a CPU's cache holds.

A layer norm, an activation and their gradients are a dozen passes over an array of all candidates.
On an accelerator the compiler makes one kernel of them. On a CPU each pass goes through memory,
once the array is larger than a core's cache, and that takes more time than the arithmetic.
"""

from collections.abc import Callable

import jax
from jax.export import is_symbolic_dim
from jaxtyping import Array

BLOCK_BYTES = 1_500_000  # of one array; a core's second-level cache is a megabyte or two


def in_blocks(f: Callable[..., Array], *arrays: Array) -> Array:
    """`f(*arrays)`, of arrays [b, ...] to one [b, ...], each mention by itself.

    Only the arguments are kept for the backward pass, which computes `f` again: cheaper, block or
    not, than writing and reading what is between. Blocks are mapped one after another, on a CPU
    and where the first array is larger than a block; whole mentions, the same number in each.
    """
    f = jax.checkpoint(f)
    n = _blocks(arrays[0])
    if n == 1:
        return f(*arrays)
    cut = [x.reshape(n, -1, *x.shape[1:]) for x in arrays]
    out = jax.lax.map(lambda block: f(*block), cut)
    return out.reshape(-1, *out.shape[2:])


def _blocks(x: Array) -> int:
    b = x.shape[0]
    if jax.default_backend() != "cpu" or any(is_symbolic_dim(size) for size in x.shape):
        return 1
    least = -(-x.size * x.dtype.itemsize // BLOCK_BYTES)
    return next((n for n in range(max(least, 1), b) if b % n == 0), b)
