"""Rows of files and of arrays on their way to a device."""

from pathlib import Path

import numpy as np
import pytest

from drin_jax.training import device_tables
from drin_jax.training.device_tables import aligned, copy_rows


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A file's map of 11 rows, read two rows at a time."""
    monkeypatch.setattr(device_tables, "CHUNK_BYTES", 2 * 3 * 4 + 1)
    path = tmp_path / "table.npy"
    np.save(path, np.arange(33, dtype=np.float32).reshape(11, 3))
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize(("first", "rows"), [(0, 11), (4, 5), (8, 6), (3, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_those_of_the_file(table: np.ndarray, first: int, rows: int, dtype: str) -> None:
    out = aligned((rows, 3), np.dtype(dtype))
    assert out.ctypes.data % device_tables.ALIGNMENT == 0
    copy_rows(table, first, out)
    expected = np.zeros((rows, 3), dtype)
    expected[: min(rows, 11 - first)] = table[first : first + rows]
    np.testing.assert_array_equal(out, expected)


def test_a_part_of_a_map_is_not_the_file(table: np.ndarray) -> None:
    for part in (table[2:, :2], table[3:], table[::2], np.array(table)):
        out = aligned(part.shape, part.dtype)
        copy_rows(part, 0, out)
        np.testing.assert_array_equal(out, part)


def test_nothing_is_copied_of_nothing() -> None:
    out = aligned((4, 0), np.dtype(np.float32))
    copy_rows(np.zeros((4, 0), np.float32), 0, out)
    assert out.shape == (4, 0)
