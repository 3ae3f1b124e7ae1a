"""Precomputed picture features: look-ups, edges by hand, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.pictures import precomputed
from data_pipeline.schema import UserError
from tests.support.tolerance import assert_close


def _arrays() -> dict[str, np.ndarray]:
    return {
        "path": np.array(["a.png", "sub/b.png", "c.png"]),
        "pooled": np.arange(6, dtype=np.float32).reshape(3, 2),
        "objects": np.array([[[1, 0], [0, 2]], [[3, 0], [0, 0]], [[1, 1], [1, 0]]], np.float32),
        "object_score": np.array([[0.5, 0.25], [1, 0], [0, 0]], np.float32),
        "clip_image": np.array([[1, 0], [0, 2], [1, 1]], np.float32),
        "text": np.array(["one", "two"]),
        "clip_text": np.array([[3, 0], [1, 1]], np.float32),
    }


def _file(tmp_path: Path, **changes: np.ndarray | None) -> Path:
    arrays: dict[str, Any] = _arrays() | changes
    path = tmp_path / "pictures.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_look_ups_resolve_paths_beside_the_file(tmp_path: Path) -> None:
    features = precomputed.load(_file(tmp_path))
    paths = [str(tmp_path / "sub" / ".." / "sub" / "b.png"), None, "a.png", f"{tmp_path}/a.png"]
    assert features.image_rows(paths).tolist() == [1, -1, -1, 0]
    assert features.text_rows(["two", "Two", None]).tolist() == [1, -1, -1]
    assert features.pooled[1].tolist() == [2, 3]


def test_vectors_come_ready_for_the_edges(tmp_path: Path) -> None:
    """CLIP's at unit length, objects as the score-weighted mean of unit vectors; c has none."""
    features = precomputed.load(_file(tmp_path))
    half = 1 / np.sqrt(2)
    assert_close(features.unit_clip_image, [[1, 0], [0, 1], [half, half]])
    assert_close(features.unit_clip_text, [[1, 0], [half, half]])
    assert_close(features.objects_mean, [[2 / 3, 1 / 3], [1, 0], [0, 0]])


NAN = np.array([[1, 0], [0, np.nan], [1, 1]], np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooled": None}, "'pooled' is missing"),
        ({"text": None}, "'text' is missing"),
        ({"pooled": np.zeros((2, 2), np.float32)}, "'pooled' has P = 2, but 'path' has 3"),
        ({"clip_text": np.zeros((3, 2), np.float32)}, "'clip_text' has T = 3, but 'text' has 2"),
        ({"pooled": np.zeros(3, np.float32)}, "'pooled' must be 2 axes of floats"),
        ({"pooled": np.zeros((3, 2), int)}, "'pooled' must be 2 axes of floats, not [3, 2] int64"),
        ({"path": np.arange(3)}, "'path' must be one axis of str"),
        ({"path": np.array(["a.png", "b.png", "./a.png"])}, "a.png' twice"),
        ({"text": np.array(["one", "one"])}, "'text' holds 'one' twice"),
        ({"clip_image": NAN}, "'clip_image' is not finite in row 1"),
        (
            {"clip_text": np.zeros((2, 3), np.float32)},
            "has c = 3, but 'clip_image' has 2",
        ),
        (
            {"object_score": np.zeros((3, 1), np.float32)},
            "has k = 1, but 'objects' has 2",
        ),
        ({"object_score": np.full((3, 2), -1, np.float32)}, "'object_score' has values below 0"),
        ({"text": np.array(["a", None], object)}, "not a whole .npz"),
    ],
)
def test_bad_arrays_are_refused_by_name(
    tmp_path: Path, changes: dict[str, np.ndarray | None], words: str
) -> None:
    path = _file(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        precomputed.load(path)
    message = str(error.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.npz"
    with pytest.raises(UserError, match="is missing"):
        precomputed.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a whole"):
        precomputed.load(path)
    np.save(path.open("wb"), np.zeros(3))
    with pytest.raises(UserError, match="not a whole"):
        precomputed.load(path)
    whole = _file(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole"):
        precomputed.load(path)
