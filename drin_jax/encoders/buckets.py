"""Which texts share a batch, and how far they are padded."""

import itertools
from collections.abc import Iterator

import numpy as np

# Padded lengths: each costs a compilation, each gap costs padding; most sentences are short.
LENGTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)
_FEW = 32  # a call with no more texts may run as one batch of its own size: the linker's case


def plan(
    lengths: np.ndarray, limit: int, batch_tokens: int, devices: int = 1
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Batches as (rows of `lengths`, padded length, batch size), shortest texts first.

    Padded lengths are those of LENGTHS below `limit`, and `limit`, the longest text there can be.
    A batch holds `batch_tokens` padded tokens on each device, and at least one text.

    A padded length has one batch size, so a whole run compiles at most once a length. What is left
    of a length moves up to the next one where that costs less than a batch with empty rows.
    """

    def whole(size: int) -> int:
        return -(-size // devices) * devices

    buckets = [length for length in LENGTHS if length < limit]
    buckets += [*range(LENGTHS[-1] + 256, limit, 256), limit]
    sizes = {length: max(1, batch_tokens // length) * devices for length in buckets}
    order = np.argsort(lengths, kind="stable")
    if 0 < len(order) <= _FEW:
        length = buckets[np.searchsorted(buckets, lengths[order[-1]])]
        size = whole(1 << (len(order) - 1).bit_length())
        if size <= sizes[length]:
            yield order, length, size
            return
    used = np.searchsorted(buckets, lengths[order])
    left = order[:0]
    present = sorted(set(used.tolist()))
    for this, after in itertools.zip_longest(present, present[1:]):
        rows = np.concatenate([left, order[used == this]])
        length = buckets[this]
        size = sizes[length]
        full = len(rows) // size * size
        for at in range(0, full, size):
            yield rows[at : at + size], length, size
        left = rows[full:]
        moved = after is not None and len(left) * buckets[after] < size * length
        if len(left) and not moved:
            yield left, length, size
            left = order[:0]
