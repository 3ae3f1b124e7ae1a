"""Rows of a store's files as arrays that devices take over, read without a map's memory."""

import math
import mmap

import numpy as np

CHUNK_BYTES = 1 << 24  # read of a file at once
ALIGNMENT = 64  # in bytes, of what a CPU device takes over instead of copying it


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that begin at a multiple of ALIGNMENT bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def copy_rows(array: np.ndarray, first: int, out: np.ndarray) -> None:
    """Copy the rows from `first` on into `out` [rows, …], as many as both have.

    A whole array that is a file's memory map is read from the file, a few megabytes at a time:
    pages read through a map stay counted to the process until memory is short.
    """
    out = out[: max(len(array) - first, 0)]
    if not (isinstance(array, np.memmap) and _is_whole(array)):
        out[:] = array[first : first + len(out)]
        return
    row_bytes = array.itemsize * math.prod(array.shape[1:])
    step = max(1, CHUNK_BYTES // row_bytes)
    with open(str(array.filename), "rb", buffering=0) as file:
        file.seek(array.offset + first * row_bytes)
        for at in range(0, len(out), step):
            chunk = out[at : at + step]
            chunk[...] = np.fromfile(file, array.dtype, chunk.size).reshape(chunk.shape)


def _is_whole(array: np.memmap) -> bool:
    """Whether the array is all of its file: what is cut from one keeps the whole one's offset."""
    return isinstance(array.base, mmap.mmap) and array.flags.c_contiguous and array.size > 0
