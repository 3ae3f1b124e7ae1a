"""A frozen module on all devices: batches of rows in, results out, a few in flight; and which
texts and which pictures share a batch."""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipeline.schema import UserError, check_known, check_least
from drin_jax.encoders import pretrained

_IN_FLIGHT = 3  # batches the device may be behind
# Padded lengths: each costs a compilation, each gap costs padding; most sentences are short.
LENGTHS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)
FEW = 256  # texts of a call, such as the linker's, up to which its batches are of these sizes
_SMALL, _HELD = (1, 8, 32), 1024  # texts of a small batch, and tokens of one of several
_START = 32  # padded tokens that take as long as a small batch takes beside its own, on a CPU
_FEW_PICTURES = 8  # of a call that may run as one smaller batch: the linker's

Batch = tuple[np.ndarray, Any]  # numbers of the rows; arrays of them, padded to a whole batch


def check_arguments(dtype: str, batch: int) -> None:
    """UserError where an encoder was asked for an unknown dtype or an empty batch."""
    check_known("an encoder's dtype", dtype, ("float32", "bfloat16"))
    check_least("an encoder's batch", batch, 1)


class Frozen:
    """The weights of `model` on every device, and `forward(model, kind, rows)` compiled for them.

    Args:
        dtype: "float32" for true float32 products, else the device's default ones.
        forward: a pytree of arrays whose first axis is that of `rows`, itself an array or a pytree
            of them; compiled once for each `kind` and each shape of `rows`.

    The rows of a batch are split over all local devices.
    """

    folder: Path  # of the checkpoint, where the module is one's

    def __init__(self, model: nnx.Module, dtype: str, forward: Callable[[Any, Any, Any], Any]):
        self.devices = jax.local_devices()
        mesh = Mesh(np.asarray(self.devices), ("data",))
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        graph, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        # Accelerators multiply float32 with fewer digits unless told not to.
        precision = "highest" if dtype == "float32" else "default"

        def compute(kind: Hashable, state: nnx.State, rows: Any) -> Any:
            with jax.default_matmul_precision(precision):
                return forward(nnx.merge(graph, state), kind, rows)

        self._compute: Any = jax.jit(compute, static_argnums=0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's config, weights, tokenizer and preprocessor files."""
        return pretrained.fingerprint(self.folder)

    def __call__(self, kind: Hashable, rows: Any) -> Any:
        """Starts one batch, whose size is a multiple of the number of devices."""
        return self._compute(kind, self._state, jax.device_put(rows, self._rows))

    def run(self, kind: Hashable, batches: Iterable[Batch]) -> Iterator[tuple[np.ndarray, Any]]:
        """(numbers of the rows, results of these rows on the host) of every batch, in order."""
        waiting: deque[tuple[np.ndarray, Any]] = deque()

        def collect() -> tuple[np.ndarray, Any]:
            members, values = waiting.popleft()
            return members, jax.tree.map(lambda x: np.asarray(x)[: len(members)], values)

        for members, rows in batches:
            waiting.append((members, self(kind, rows)))
            if len(waiting) > _IN_FLIGHT:
                yield collect()
        while waiting:
            yield collect()

    def gather(self, kind: Hashable, batches: Iterable[Batch], count: int) -> Any:
        """The results of rows 0 to `count` in their order, [count, ...] float32 on the host;
        `batches`, at least one, together hold each row once."""
        out: Any = None
        for members, values in self.run(kind, batches):
            if out is None:
                out = jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), np.float32), values)
            for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(values), strict=True):
                whole[members] = part
        return out

    def nothing(self, kind: Hashable, rows: Any) -> Any:
        """The results of no rows, without computing any; `rows` is one of them, of any content."""
        shapes = jax.eval_shape(partial(self._compute, kind), self._state, rows)
        return jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), np.float32), shapes)

    def compiled(self) -> int:
        """How many (kind, shape) have been compiled."""
        return self._compute._cache_size()


def plan(
    lengths: np.ndarray, limit: int, batch_tokens: int, devices: int = 1
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Batches as (rows of `lengths`, padded length, batch size), shortest texts first.

    Padded lengths are those of LENGTHS below `limit`, and `limit`, the longest text there can be.
    A batch holds `batch_tokens` padded tokens on each device, and at least one text.

    A padded length has one batch size, so a whole run compiles at most once a length. What is left
    of a length moves up to the next one where that costs less than a batch with empty rows. Up to
    FEW texts run in the small batches, of several sizes a length, that take the least time.
    """

    sizes = _sizes(limit, batch_tokens, devices)
    buckets = list(sizes)
    order = np.argsort(lengths, kind="stable")
    used = np.searchsorted(buckets, lengths[order])
    if len(order) <= FEW:
        padded = [buckets[i] for i in used]
        for begin, end, size in _least(padded, sizes, devices):
            yield order[begin:end], padded[end - 1], size
        return
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


def shapes(most: int, limit: int, batch_tokens: int, devices: int = 1) -> Iterator[tuple[int, int]]:
    """Every padded length and batch size that `plan` gives up to `most` texts."""
    needed = 1 + sum(size < most for size in _SMALL)
    for length, full in _sizes(limit, batch_tokens, devices).items():
        small = {*_small(length, full, devices)[:needed]}
        yield from ((length, size) for size in sorted(small | ({full} if most > FEW else set())))


def _least(
    padded: Sequence[int], sizes: Mapping[int, int], devices: int
) -> list[tuple[int, int, int]]:
    """(first text, last + 1, batch size) of the batches that take the least time together.

    Args:
        padded: length of each text, rising.
        sizes: texts of a full batch of each length.
    """
    cost, last = [0], [(0, 0)]  # of the first i texts: their cost, and where their last batch is
    for end, length in enumerate(padded, 1):
        ways = (
            (cost[max(0, end - size)] + _START + size * length, max(0, end - size), size)
            for size in _small(length, sizes[length], devices)
        )
        least, begin, size = min(ways)
        cost.append(least)
        last.append((begin, size))
    out, end = [], len(padded)
    while end:
        begin, size = last[end]
        out.append((begin, end, size))
        end = begin
    return out[::-1]


def _small(length: int, full: int, devices: int) -> list[int]:
    """Sizes of small batches of a length, a multiple of the devices and no larger than a full
    one, the smallest among them."""
    fitting = (size for size in _SMALL if size == 1 or size * length <= _HELD * devices)
    whole = dict.fromkeys(-(-size // devices) * devices for size in fitting)
    return [size for size in whole if size <= full]


def _sizes(limit: int, batch_tokens: int, devices: int) -> dict[int, int]:
    """Padded length -> texts of a full batch of it."""
    buckets = [length for length in LENGTHS if length < limit]
    buckets += [*range(LENGTHS[-1] + 256, limit, 256), limit]
    return {length: max(1, batch_tokens // length) * devices for length in buckets}


def check_pixels(pixels: np.ndarray, side: int | None = None) -> None:
    """UserError where `pixels` are no uint8 [n, height, width, 3], or not `side` high and wide."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise UserError(
            f"pixels are {pixels.dtype} {pixels.shape}; pass uint8 [n, height, width, 3]"
        )
    if side and pixels.shape[1:3] != (side, side):
        raise UserError(
            f"pictures are {pixels.shape[1]} x {pixels.shape[2]} pixels, the encoder takes "
            f"{side} x {side}; make the preprocessor's crop_size fit config.json's image_size"
        )


def picture_batches(pixels: np.ndarray, size: int, devices: int) -> Iterator[Batch]:
    """Batches of `size` pictures a device, the last one filled up with black ones.

    All batches of all calls have one size, so that nothing is compiled twice. Only a call with a
    handful of pictures runs as one smaller batch (1, 2, 4 or 8 a device).
    """
    whole = size * devices
    if 0 < len(pixels) <= _FEW_PICTURES:
        whole = min(whole, -(-(1 << (len(pixels) - 1).bit_length()) // devices) * devices)
    for start in range(0, len(pixels), whole):
        part = pixels[start : start + whole]
        rows = np.zeros((whole, *pixels.shape[1:]), np.uint8)
        rows[: len(part)] = part
        yield np.arange(start, start + len(part)), rows
