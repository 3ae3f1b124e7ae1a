"""Retrieval by vectors: the exact cosine top-r, in chunks, ties in the order of the entities."""

from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipeline.schema import PADDING, UserError
from drin_jax.extract import vector_retrieval
from drin_jax.extract.vector_retrieval import by_vectors
from tests.support.tolerance import assert_close


def vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def cosines(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """In float64, by the definition."""
    x, y = queries.astype(np.float64), keys.astype(np.float64)
    return x @ y.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))


@pytest.mark.parametrize("chunk", [1, 200, 16384])
def test_top_r_is_the_sort_of_all_cosines(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_retrieval, "QUERY_CHUNK", 16)  # several of each, the last one short
    queries, keys = vectors(37, 24, seed=0), vectors(1100, 24, seed=1)
    rows, scores = by_vectors(queries, keys, 30, chunk=chunk)
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)
    full = cosines(queries, keys)
    expected = np.argsort(-full, axis=1, kind="stable")[:, :30]
    np.testing.assert_array_equal(rows, expected)
    assert_close(scores, np.take_along_axis(full, expected, 1))


def test_equal_vectors_are_in_the_order_of_the_entities() -> None:
    """Copies lie in several chunks, each at another column."""
    keys = vectors(1000, 40, seed=2)
    copies = np.random.default_rng(3).permutation(1000)[:60]
    keys[copies] = keys[copies[0]]
    queries = np.stack([keys[copies[0]] * 3, vectors(1, 40, seed=4)[0]])
    rows, scores = by_vectors(queries, keys, 60, chunk=256)
    assert rows[0].tolist() == sorted(copies.tolist())
    assert len(set(scores[0].tolist())) == 1
    within = [row for row in rows[1].tolist() if row in set(copies.tolist())]
    assert within == sorted(within)


def test_a_missing_vector_is_retrieved_when_nothing_else_is_left() -> None:
    keys = vectors(300, 8, seed=5)
    keys[[0, 1, 200]] = 0
    queries = np.stack([vectors(1, 8, seed=6)[0], np.zeros(8, np.float32)])
    rows, scores = by_vectors(queries, keys, 303, chunk=128)
    for i in range(2):
        assert set(rows[i, :297].tolist()) == set(range(300)) - {0, 1, 200}
        assert rows[i, 297:].tolist() == [0, 1, 200, PADDING, PADDING, PADDING]
        assert scores[i, 297:].tolist() == [-1, -1, -1, 0, 0, 0]
        assert (np.diff(scores[i, :300]) <= 0).all()
    assert rows[1, :297].tolist() == [i for i in range(300) if i not in (0, 1, 200)]
    assert not scores[1, :297].any()


def test_lengths_do_not_count_however_large_or_small() -> None:
    queries, keys = vectors(5, 16, seed=7), vectors(200, 16, seed=8)
    length = np.float32(10.0) ** np.random.default_rng(9).integers(-30, 30, (200, 1))
    expected = by_vectors(queries, keys, 10)
    rows, scores = by_vectors(queries, keys * length, 10)
    np.testing.assert_array_equal(rows, expected[0])
    assert_close(scores, expected[1])


def test_keys_may_be_a_memory_map_and_compile_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queries, keys = vectors(9, 12, seed=10), vectors(1500, 12, seed=11)
    np.save(tmp_path / "keys.npy", keys)
    mapped = np.load(tmp_path / "keys.npy", mmap_mode="r")
    by_vectors(queries, mapped[:128], 7, chunk=128)
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        rows, scores = by_vectors(queries, mapped, 7, chunk=128)  # 12 chunks, the last one short
    assert not [line for line in caplog.messages if "Compiling" in line]
    for mine, whole in zip((rows, scores), by_vectors(queries, keys, 7, chunk=128), strict=True):
        np.testing.assert_array_equal(mine, whole)


def test_nothing_to_retrieve_is_padding() -> None:
    rows, scores = by_vectors(vectors(2, 4, seed=0), np.zeros((0, 4), np.float32), 3)
    assert rows.tolist() == [[PADDING] * 3] * 2
    assert not scores.any()
    assert by_vectors(np.zeros((0, 4), np.float32), vectors(2, 4, seed=0), 3)[0].shape == (0, 3)


def test_wrong_input_is_told_in_one_line() -> None:
    queries, keys = vectors(2, 4, seed=0), vectors(400, 4, seed=1)
    with pytest.raises(UserError, match="mentions are 4 wide, entities 3; encode both"):
        by_vectors(queries, keys[:, :3], 1)
    with pytest.raises(UserError, match="both must be at least 1"):
        by_vectors(queries, keys, 0)
    keys[300, 2] = np.nan
    with pytest.raises(UserError, match="vector of entity 300 is not finite"):
        by_vectors(queries, keys, 1, chunk=128)
    with pytest.raises(UserError, match="vector of mention 1 is not finite"):
        by_vectors(np.array([[1, 1], [np.inf, 0]], np.float32), keys[:, :2], 1)
