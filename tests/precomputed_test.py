"""Precomputed picture features: look-ups, edges by hand, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import precomputed
from data_pipeline.schema import DataError


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


def test_edges_by_hand(tmp_path: Path) -> None:
    """tv and vt are cosines of CLIP vectors, vv is [11]; an end that is missing gives 0."""
    features = precomputed.load(_file(tmp_path))
    a, b, c = (str(tmp_path / name) for name in ("a.png", "sub/b.png", "c.png"))
    edges = features.edges(
        ["one", "unknown"],
        [a, None],
        ["two", "not there"],
        [b, c],
        np.array([[0, 1, -1], [0, 1, -1]]),
    )
    half = 1 / np.sqrt(2)
    assert edges.shape == (2, 3, 3)
    assert edges.dtype == np.float32
    np.testing.assert_allclose(edges[0, 0], [0, half, 0], atol=1e-6)  # (1, 0) . (0, 1), (1, 1)
    np.testing.assert_allclose(edges[0, 1], [half, 0, 0], atol=1e-6)
    # (0.5 * 1 * 1 + 0.25 * 1 * 0) / (0.75 * 1); c has no object with a score.
    np.testing.assert_allclose(edges[0, 2], [2 / 3, 0, 0], atol=1e-6)
    assert not edges[1].any()


def test_vv_is_equation_11(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    v, s = rng.normal(size=(5, 3, 4)).astype(np.float32), rng.random((5, 3)).astype(np.float32)
    path = _file(
        tmp_path,
        path=np.array([f"{i}.png" for i in range(5)]),
        pooled=np.zeros((5, 1), np.float32),
        clip_image=np.zeros((5, 2), np.float32),
        objects=v,
        object_score=s,
    )
    names = [str(tmp_path / f"{i}.png") for i in range(5)]
    candidates = np.array([[1, 2], [3, 4]])
    edges = precomputed.load(path).edges(["", ""], names[:2], [""] * 5, names, candidates)
    for i in range(2):
        for slot, j in enumerate(candidates[i]):
            cosines = np.array([
                [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for y in v[j]] for x in v[i]
            ])  # fmt: skip
            expected = s[i] @ cosines @ s[j] / (s[i].sum() * s[j].sum())
            assert edges[i, 2, slot] == pytest.approx(expected, abs=1e-6)


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = precomputed.load(_file(tmp_path))
    a, b, c = (str(tmp_path / name) for name in ("a.png", "sub/b.png", "c.png"))
    arguments = (["one", "two", "one"], [a, b, c], ["two", "one"], [b, a])
    candidates = np.array([[0, 1], [1, 0], [1, -1]])
    whole = features.edges(*arguments, candidates)
    monkeypatch.setattr(precomputed, "ROWS", 2)
    np.testing.assert_array_equal(features.edges(*arguments, candidates), whole)


def test_saved_arrays_load_again(tmp_path: Path) -> None:
    arrays = _arrays()
    numbers = {name: arrays[name] for name in precomputed.ARRAYS}
    path = tmp_path / "saved.npz"
    precomputed.save(path, paths=["c.png", "a.png", "b.png"], texts=["y", "x"], **numbers)
    loaded = precomputed.load(path)
    assert [Path(one).name for one in loaded.path] == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(loaded.pooled, arrays["pooled"][[1, 2, 0]])
    np.testing.assert_array_equal(loaded.clip_text, arrays["clip_text"][[1, 0]])
    assert [one.name for one in tmp_path.iterdir()] == ["saved.npz"]


NAN = np.array([[1, 0], [0, np.nan], [1, 1]], np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooled": None}, "'pooled' is missing"),
        ({"text": None}, "'text' is missing"),
        ({"pooled": np.zeros((2, 2), np.float32)}, "'pooled' has 2 rows, but 'path' has 3"),
        ({"clip_text": np.zeros((3, 2), np.float32)}, "'clip_text' has 3 rows, but 'text' has 2"),
        ({"pooled": np.zeros(3, np.float32)}, "'pooled' must be 2 axes of floats"),
        ({"pooled": np.zeros((3, 2), int)}, "'pooled' must be 2 axes of floats, not [3, 2] int64"),
        ({"path": np.arange(3)}, "'path' must be one axis of str"),
        ({"path": np.array(["a.png", "b.png", "./a.png"])}, "a.png' twice"),
        ({"text": np.array(["one", "one"])}, "'text' holds 'one' twice"),
        ({"clip_image": NAN}, "'clip_image' is not finite in row 1"),
        ({"clip_text": np.zeros((2, 3), np.float32)}, "'clip_image' and 'clip_text' differ"),
        ({"object_score": np.zeros((3, 1), np.float32)}, "number of objects"),
        ({"object_score": np.full((3, 2), -1, np.float32)}, "'object_score' has values below 0"),
        ({"text": np.array(["a", None], object)}, "not a whole .npz"),
    ],
)
def test_bad_arrays_are_refused_by_name(
    tmp_path: Path, changes: dict[str, np.ndarray | None], words: str
) -> None:
    path = _file(tmp_path, **changes)
    with pytest.raises(DataError) as error:
        precomputed.load(path)
    message = str(error.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pictures.npz"
    with pytest.raises(DataError, match="is missing"):
        precomputed.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a whole"):
        precomputed.load(path)
    np.save(path.open("wb"), np.zeros(3))
    with pytest.raises(DataError, match="not a whole"):
        precomputed.load(path)
    whole = _file(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole"):
        precomputed.load(path)
