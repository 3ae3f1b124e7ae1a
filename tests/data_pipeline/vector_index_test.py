"""The nearest vectors of a large knowledge base by its index: nearly all of them, of the generation
that is asked, whatever was added, removed, damaged or killed since."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.kb import caches, vector_index
from data_pipeline.kb.change import Change, Fill
from data_pipeline.kb.knowledge_base import KnowledgeBase, open_kb
from data_pipeline.kb.vector_index import VectorIndex
from data_pipeline.schema import PADDING, Entity
from drin_jax.extract import vector_retrieval
from drin_jax.extract.vector_retrieval import by_vectors, nearest
from tests.support.fixtures import refusal

TABLE, WIDTH, FIRST, LATER = "entity_text_edge", 24, 3000, 200
EMPTY = (0, 17, FIRST + 3)  # entities without a text


def file_of(path: Path) -> Path:
    """The index's file; of no rows where there is none."""
    found = [*(path / "index").glob(f"{TABLE}-*.faiss")]
    return found[0] if found else path / "index" / f"{TABLE}-0.faiss"


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """[FIRST + LATER, WIDTH] in clusters, as texts are."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, WIDTH))
    found = centres[rng.integers(0, 40, FIRST + LATER)] + rng.normal(size=(FIRST + LATER, WIDTH))
    found[list(EMPTY)] = 0
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    near = vectors[rng.integers(20, FIRST, 200)]
    return (near + rng.normal(size=near.shape) / 2).astype(np.float32)


def entities(begin: int, end: int) -> list[Entity]:
    return [Entity(f"Q{i}", f"name {i}", "") for i in range(begin, end)]


def filled(vectors: np.ndarray, begin: int) -> Fill:
    def fill(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_text", vectors[begin : begin + len(some)])
        return {}

    return fill


@pytest.fixture(scope="module")
def built(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge base of the first rows, with its index."""
    path = tmp_path_factory.mktemp("built") / "kb"
    with Change(path, filled(vectors, 0)) as change:
        VectorIndex(change.build(entities(0, FIRST), name="x"), TABLE)
    return path


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(built, tmp_path / "kb")


@pytest.fixture
def grown(path: Path, vectors: np.ndarray) -> KnowledgeBase:
    """The same with the later rows, and one taken out."""
    with Change(path, filled(vectors, FIRST)) as change:
        change.add(entities(FIRST, FIRST + LATER))
    with Change(path) as change:
        return change.remove(["Q100"])


def exact(kb: KnowledgeBase, queries: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    return by_vectors(queries, kb.array(TABLE), r, alive=kb.alive)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    shared = [len({*mine} & {*theirs}) for mine, theirs in zip(found, wanted, strict=True)]
    return sum(shared) / wanted.size


def test_nearly_all_of_the_nearest_with_their_cosines(built: Path, queries: np.ndarray) -> None:
    kb = open_kb(built)
    rows, cosines = VectorIndex(kb, TABLE).nearest(queries, 10)
    wanted, true = exact(kb, queries, 10)
    assert rows.dtype == np.int32
    assert cosines.dtype == np.float32
    assert 0.95 < recall(rows, wanted) <= 1
    assert (np.diff(cosines) <= 0).all()
    assert not {*EMPTY} & {*rows.ravel().tolist()}
    first = rows[:, 0] == wanted[:, 0]
    np.testing.assert_allclose(cosines[first, 0], true[first, 0], atol=1e-6)


def test_more_than_there_are_is_padded(built: Path, queries: np.ndarray) -> None:
    kb = open_kb(built)
    index = VectorIndex(kb, TABLE)
    rows, cosines = index.nearest(queries[:2], FIRST + 5)
    assert (rows[:, -5:] == PADDING).all()
    assert (cosines[:, -5:] == 0).all()
    assert index.nearest(queries[:0], 3)[0].shape == (0, 3)
    assert "24; encode both" in refusal(lambda: index.nearest(queries[:, :5], 3))


def test_what_was_added_and_removed(
    grown: KnowledgeBase, built: Path, vectors: np.ndarray, queries: np.ndarray
) -> None:
    before = file_of(grown.path).stat().st_mtime_ns
    index = VectorIndex(grown, TABLE)
    assert file_of(grown.path).stat().st_mtime_ns == before
    rows, _ = index.nearest(vectors[FIRST + 20 :], 1)
    assert rows.ravel().tolist() == [*range(FIRST + 20, FIRST + LATER)]
    assert 100 not in index.nearest(vectors[100:101], 5)[0]
    assert recall(index.nearest(queries, 10)[0], exact(grown, queries, 10)[0]) > 0.95
    # The generation before does not see it, whichever index is there.
    old = open_kb(grown.path, at=open_kb(built).reference())
    np.testing.assert_array_equal(
        VectorIndex(old, TABLE).nearest(queries, 10),
        VectorIndex(open_kb(built), TABLE).nearest(queries, 10),
    )


@pytest.mark.parametrize("times", [2.0, 1.0])
def test_much_that_was_added_is_put_in(
    grown: KnowledgeBase,
    built: Path,
    vectors: np.ndarray,
    queries: np.ndarray,
    times: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(vector_index, "LATE", LATER - 1)
    monkeypatch.setattr(vector_index, "GROWN", times)
    index = VectorIndex(grown, TABLE)
    added = LATER if times > 1 else FIRST + LATER
    assert f"indexing vectors: {added}/{added} rows" in capsys.readouterr().err
    own = index.nearest(vectors[FIRST + 20 :], 1)[0].ravel()
    assert np.mean(own == np.arange(FIRST + 20, FIRST + LATER)) > 0.95
    assert recall(index.nearest(queries, 10)[0], exact(grown, queries, 10)[0]) > 0.95
    VectorIndex(open_kb(grown.path), TABLE)
    assert "indexing" not in capsys.readouterr().err
    old = open_kb(grown.path, at=open_kb(built).reference())
    assert VectorIndex(old, TABLE).nearest(vectors[FIRST + 20 :], 5)[0].max() < FIRST


def state_of(file: Path) -> Path:
    return file.with_name(f"{TABLE}.json")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def odd(file: Path) -> None:
    state_of(file).write_text('{"form": 1, "segments": 3}')


@pytest.mark.parametrize("spoil", [cut, changed, odd, lambda file: state_of(file).unlink()])
def test_a_damaged_index_is_made_anew(
    path: Path,
    queries: np.ndarray,
    spoil: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kb = open_kb(path)
    expected = VectorIndex(kb, TABLE).nearest(queries, 10)
    spoil(file_of(path))
    found = VectorIndex(kb, TABLE).nearest(queries, 10)
    assert "is not of this knowledge base; made anew" in capsys.readouterr().err
    np.testing.assert_array_equal(found, expected)
    VectorIndex(kb, TABLE)
    assert "anew" not in capsys.readouterr().err


def test_one_of_another_knowledge_base_is_not_used(path: Path, vectors: np.ndarray) -> None:
    file = file_of(path)
    index = file.read_bytes()
    state = (path / "index" / f"{TABLE}.json").read_bytes()
    shutil.rmtree(path / "000001")
    (path / "kb.json").unlink()
    with Change(path, filled(vectors[::-1], 0)) as change:
        kb = change.build(entities(0, FIRST), name="x")
    file.write_bytes(index)
    (path / "index" / f"{TABLE}.json").write_bytes(state)
    rows, _ = VectorIndex(kb, TABLE).nearest(vectors[-20:], 1)
    assert rows.ravel().tolist() == [*range(19, -1, -1)]


def test_where_it_cannot_be_written_it_is_made_in_memory(
    path: Path,
    queries: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kb = open_kb(path)
    expected = VectorIndex(kb, TABLE).nearest(queries, 10)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (path / "index" / f"{TABLE}.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(vector_index, "write_whole", full)
        found = VectorIndex(kb, TABLE).nearest(queries, 10)
    assert "cannot be written ([Errno 28] No space left on device)" in capsys.readouterr().err
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(caches, "PATIENCE", 0)
    with caches.in_turn(path):  # another process is at it
        np.testing.assert_array_equal(VectorIndex(kb, TABLE).nearest(queries, 10), expected)
    assert "made in memory" in capsys.readouterr().err


def test_killed_while_it_is_written(path: Path, queries: np.ndarray) -> None:
    kb = open_kb(path)
    expected = VectorIndex(kb, TABLE).nearest(queries, 10)
    (path / "index" / f"{TABLE}.json").unlink()
    file_of(path).with_suffix(".faiss.tmp").write_bytes(b"half")
    np.testing.assert_array_equal(VectorIndex(kb, TABLE).nearest(queries, 10), expected)


def test_killed_while_it_grows_it_grows_again(
    grown: KnowledgeBase, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment: the index that was there counts until the new one does."""

    def end(*_: Any) -> None:
        raise KeyboardInterrupt

    VectorIndex(grown, TABLE)
    monkeypatch.setattr(vector_index, "LATE", 0)
    for step in ("write_whole", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(vector_index, step, end)
            with pytest.raises(KeyboardInterrupt):
                VectorIndex(grown, TABLE)
    monkeypatch.setattr(vector_index, "_trained", end)  # of an index that is made anew
    rows, _ = VectorIndex(grown, TABLE).nearest(vectors[FIRST + 20 :], 1)
    assert rows.ravel().tolist() == [*range(FIRST + 20, FIRST + LATER)]
    assert [file_of(grown.path)] == [*file_of(grown.path).parent.glob("*.faiss")]


def test_it_is_forgotten_when_rows_get_other_numbers(
    grown: KnowledgeBase, vectors: np.ndarray
) -> None:
    with Change(grown.path) as change:
        compacted = change.compact()
    assert not file_of(grown.path).exists()
    rows, _ = VectorIndex(compacted, TABLE).nearest(vectors[101:102], 1)
    assert rows[0, 0] == 100


@pytest.mark.parametrize("count", [0, 1, 20, 290])
@pytest.mark.parametrize("alike", [False, True])
def test_hardly_any_vectors(vectors: np.ndarray, tmp_path: Path, count: int, alike: bool) -> None:
    few = np.zeros((300, WIDTH), np.float32)
    few[5 : 5 + count] = vectors[20] if alike else vectors[20 : 20 + count]
    with Change(tmp_path / "kb", filled(few, 0)) as change:
        kb = change.build(entities(0, 300), name="x")
    rows, cosines = VectorIndex(kb, TABLE).nearest(vectors[20:21], 3)
    wanted = [row if row < 5 + count else PADDING for row in (5, 6, 7)]
    assert rows[0, 0] == wanted[0]
    assert (rows[0] == PADDING).tolist() == [row == PADDING for row in wanted]
    assert np.isfinite(cosines).all()


def test_large_knowledge_bases_are_searched_by_it(
    path: Path,
    queries: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kb = open_kb(path)
    whole = exact(kb, queries, 10)
    np.testing.assert_array_equal(nearest(kb, TABLE, queries, 10)[0], whole[0])
    monkeypatch.setattr(vector_retrieval, "EXACT", FIRST - 1)
    found = nearest(kb, TABLE, queries, 10)
    np.testing.assert_array_equal(found, VectorIndex(kb, TABLE).nearest(queries, 10))
    monkeypatch.setattr(vector_index, "installed", lambda: False)
    np.testing.assert_array_equal(nearest(kb, TABLE, queries, 10)[0], whole[0])
    assert "pip install 'drin_jax[index]'" in capsys.readouterr().err
