"""A file of the store: opened only if it is what it should be."""

import dataclasses
import io
import math
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.output import Progress
from data_pipeline.schema import UserError

CHUNK = 1 << 23  # bytes read at once
QUIET_BYTES = 2 << 30  # less is read in a few seconds


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a file holds: `bytes` is its whole length, `crc32` runs over the whole file."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    crc32: int

    @property
    def form(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype."""
        return self.shape, self.dtype


@dataclasses.dataclass(frozen=True)
class Header:
    """What a C-ordered array is, and where in its file it begins."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def form(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype, as a `Spec` has them."""
        return self.shape, self.dtype.name if self.dtype.isnative else self.dtype.str


def npy_header(shape: Sequence[int], dtype: str) -> bytes:
    """What a `.npy` file of this shape and dtype begins with."""
    file, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(dtype))
    fields = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def read_header(path: Path, mend: str = "") -> Header:
    """What a `.npy` file's header tells.

    Args:
        mend: what the user is to do where the file is damaged; by default, to make the store anew.

    Raises:
        UserError: missing, unreadable, not a `.npy` file, cut, or not in C order.
    """
    mend = mend or f"delete {path.parent} and run again to make it anew"
    try:
        with path.open("rb") as file:
            magic = file.read(len(np.lib.format.MAGIC_PREFIX))
            if magic != np.lib.format.MAGIC_PREFIX:
                raise UserError(f"{path}: {'is no .npy file' if magic else 'is empty'}; {mend}")
            file.seek(0)
            major, minor = np.lib.format.read_magic(file)
            read = getattr(np.lib.format, f"read_array_header_{major}_{minor}")
            shape, fortran, dtype = read(file)
            header = Header(shape, dtype, file.tell())
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {mend}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except Exception:  # a damaged header surfaces as whatever its parser meets first
        raise UserError(f"{path}: its header is damaged or cut; {mend}") from None
    if fortran and len(shape) > 1:
        raise UserError(f"{path}: is in Fortran order, not in C order; {mend}")
    if size < header.end:
        told = f"{size} bytes where {dtype.name} {list(shape)} takes {header.end}"
        raise UserError(f"{path}: is cut, {told}; {mend}")
    return header


def check(path: Path, spec: Spec, mend: str = "") -> Header:
    """The file's header. UserError unless it has length, shape and dtype of `spec`; `mend` as
    `read_header` takes it."""
    mend = mend or f"delete {path.parent} and run again to make it anew"
    header = read_header(path, mend)
    (shape, dtype), size = header.form, path.stat().st_size
    if (shape, dtype, size) != (spec.shape, spec.dtype, spec.bytes):
        raise UserError(
            f"{path}: holds {dtype} {list(shape)} in {size} bytes, but it was written as "
            f"{spec.dtype} {list(spec.shape)} in {spec.bytes}; {mend}"
        )
    if size > header.end:
        raise UserError(
            f"{path}: holds {size - header.end} bytes more than its {dtype} {list(shape)} takes; "
            f"{mend}"
        )
    return header


def crc32(path: Path, advance: Callable[[int], None]) -> int:
    """CRC-32 of the whole file; `advance` is told how many bytes were read, after each piece."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            crc = zlib.crc32(piece, crc)
            advance(len(piece))
    return crc


def checksum(path: Path, header: Header, advance: Callable[[int], None]) -> tuple[int, int | None]:
    """CRC-32 of the whole file, and the first row with a float that is not finite, or None.

    Args:
        advance: told how many bytes were read, after each piece.
    """
    bad, seen = None, 0
    width = max(math.prod(header.shape[1:]), 1)
    with path.open("rb") as file:
        crc = zlib.crc32(file.read(header.offset))
        while piece := file.read(CHUNK):
            crc = zlib.crc32(piece, crc)
            if header.dtype.kind == "f" and bad is None:
                finite = np.isfinite(np.frombuffer(piece, header.dtype))
                if not finite.all():
                    bad = (seen + int(np.argmin(finite))) // width
                seen += len(finite)
            advance(len(piece))
    return crc, bad


def open_array(path: Path) -> np.memmap:
    """The array, memory-mapped, read-only."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def watch(title: str, total: int) -> Progress:
    """A bar over `total` bytes; silent where few."""
    return Progress(title, total, unit="B", loud=total >= QUIET_BYTES)
