"""A file of the store: written whole or not at all, opened only if it is what it should be."""

import contextlib
import dataclasses
import io
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_pipeline.files import write_whole
from data_pipeline.progress import Progress
from data_pipeline.schema import UserError

MAGIC = b"\x93NUMPY"
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
    def content(self) -> int:
        """Bytes of the array itself, behind the header."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The bytes before a C-ordered array."""
    out = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def save(path: Path, array: np.ndarray) -> None:
    """The array as a whole `.npy` file, in C order."""
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    write_whole(path, lambda file: np.lib.format.write_array(file, native, allow_pickle=False))


def read_header(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape and dtype told by a file's header.

    Raises:
        UserError: missing, unreadable, not a `.npy` file, or not in C order.
    """
    try:
        with path.open("rb") as file:
            if (magic := file.read(len(MAGIC))) != MAGIC:
                what = "is empty" if not magic else "is no .npy file"
                raise UserError(f"{path}: {what}; {_remedy(path)}")
            file.seek(0)
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {_remedy(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UserError:
        raise
    except Exception:  # a damaged header surfaces as whatever its parser meets first
        raise UserError(f"{path}: its header is damaged or cut; {_remedy(path)}") from None
    if fortran and len(shape) > 1:
        raise UserError(f"{path}: is in Fortran order; {_remedy(path)}")
    return shape, dtype.name if dtype.isnative else dtype.str


def check(path: Path, spec: Spec) -> None:
    """UserError unless the file has length, shape and dtype of `spec`. Reads the header only."""
    try:
        size = path.stat().st_size
    except OSError:
        size = spec.bytes  # read_header says why it cannot be read
    if size >= spec.bytes:
        shape, dtype = read_header(path)
        if (shape, dtype) != (spec.shape, spec.dtype):
            raise UserError(
                f"{path}: holds {dtype} {list(shape)}, but store.json says {spec.dtype} "
                f"{list(spec.shape)}; {_remedy(path)}"
            )
    elif size:
        read_header(path)  # tells a foreign file from one that is cut
    if size != spec.bytes:
        what = "is cut" if size < spec.bytes else "is too long"
        raise UserError(
            f"{path}: {what}, {size} bytes where store.json says {spec.bytes}; {_remedy(path)}"
        )


def checksum(
    path: Path, shape: tuple[int, ...], dtype: str, advance: Callable[[int], None]
) -> tuple[int, int | None]:
    """CRC-32 of the whole file, and the first row with a float that is not finite, or None.

    Args:
        advance: told how many bytes were read, after each piece.
    """
    crc, bad, seen = 0, None, 0
    kind = np.dtype(dtype)
    width = max(math.prod(shape[1:]), 1)
    with path.open("rb") as file:
        crc = zlib.crc32(file.read(path.stat().st_size - math.prod(shape) * kind.itemsize))
        while piece := file.read(CHUNK):
            crc = zlib.crc32(piece, crc)
            if kind.kind == "f" and bad is None:
                finite = np.isfinite(np.frombuffer(piece, kind))
                if not finite.all():
                    bad = (seen + int(np.argmin(finite))) // width
                seen += len(finite)
            advance(len(piece))
    return crc, bad


def open_array(path: Path) -> np.memmap:
    """The array, memory-mapped, read-only."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


@contextlib.contextmanager
def watch(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress over `total` bytes; silent where few.

    Yields:
        a function to call with the number of bytes that were done.
    """
    with Progress(title, total, unit="B", loud=total >= QUIET_BYTES) as bar:
        yield bar.advance


def _remedy(path: Path) -> str:
    return f"delete {path.parent} and run again to make it anew"
