"""Retrieval: exact top-r in a documented order, from memory or from a cache that may be damaged."""

from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from data_pipeline import readers
from data_pipeline.retrieval import names as name_retrieval
from data_pipeline.retrieval.names import SCORERS, by_name, given
from data_pipeline.schema import PADDING, Corpus, Entity, Mention, UserError
from tests.support.paths import SHARED

WIKIMEL = SHARED / "data" / "wikimel"

NAMES = ["Stefanie Powers", "Noel Harrison", "POWERS!", "powers", "George Harrison"]


def test_ties_are_in_the_order_of_the_names() -> None:
    rows, scores = by_name(NAMES, ["Powers", "harrison", "Powers"], 3, scorer="WRatio")
    assert rows.dtype == np.int32
    assert scores.dtype == np.float32
    assert rows[0].tolist() == [2, 3, 0]  # the third and fourth are the same name after processing
    assert scores[0].tolist() == [100, 100, 90]
    assert rows[1, :2].tolist() == [1, 4]
    assert scores[1, 0] == scores[1, 1] == 90
    np.testing.assert_array_equal(rows[2], rows[0])


@pytest.mark.parametrize("scorer", SCORERS)
def test_top_r_is_a_stable_sort_of_all_scores(scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = np.random.default_rng(0).choice(list("abc "), size=(230, 5))
    strings = ["".join(row) for row in letters]
    names, queries = strings[:200], strings[200:]
    monkeypatch.setattr(
        name_retrieval, "CHUNK_PAIRS", 7 * len(names)
    )  # several chunks, the last short
    rows, scores = by_name(names, queries, 20, scorer=scorer)
    function = getattr(fuzz, scorer)
    full = np.array(
        [[function(default_process(q), default_process(n)) for n in names] for q in queries],
        np.float32,
    )
    expected = np.argsort(-full, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(full, expected, axis=1))
    assert len(np.unique(names)) < len(names)  # names that occur twice are scored once


def test_fewer_entities_than_r_are_padded() -> None:
    rows, scores = by_name(NAMES[:2], ["Powers", "?!"], 4)
    assert rows.tolist() == [[0, 1, PADDING, PADDING], [0, 1, PADDING, PADDING]]
    assert scores[0, 0] == 90
    assert scores[:, 2:].tolist() == [[0, 0], [0, 0]]
    assert scores[1].tolist() == [0, 0, 0, 0]  # nothing to compare: the first names, score 0
    rows, scores = by_name([], ["Powers"], 2)
    assert rows.tolist() == [[PADDING, PADDING]]
    assert by_name(NAMES, [], 3)[0].shape == (0, 3)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is 'wratio'; known are WRatio, QRatio"):
        by_name(NAMES, ["x"], 1, scorer="wratio")
    with pytest.raises(UserError, match=r"retrieval\.r is 0"):
        by_name(NAMES, ["x"], 0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        by_name(NAMES, ["x"], 1, cache_dir=tmp_path / "file")


# ---- the cache ---------------------------------------------------------------------------------


def fail(*_: object, **__: object) -> None:
    raise AssertionError("computed, but the cache holds it")


def test_cache_serves_the_same_question_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ["Powers", "Noel", "powers"]
    fresh = by_name(NAMES, queries, 3, cache_dir=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]  # no draft is left
    monkeypatch.setattr(name_retrieval.process, "cdist", fail)
    for ours, cached in zip(fresh, by_name(NAMES, queries, 3, cache_dir=tmp_path), strict=True):
        np.testing.assert_array_equal(ours, cached)
    for names, asked, r, scorer in (
        (NAMES[::-1], queries, 3, "WRatio"),
        (NAMES, queries[:1], 3, "WRatio"),
        (NAMES, queries, 2, "WRatio"),
        (NAMES, queries, 3, "ratio"),
        (["".join(NAMES[:2]), *NAMES[2:]], queries, 3, "WRatio"),
    ):
        with pytest.raises(AssertionError, match="computed"):
            by_name(names, asked, r, scorer=scorer, cache_dir=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "other key", "row", "empty"])
def test_a_damaged_cache_is_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = by_name(NAMES, ["Powers"], 3, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        at = whole.index(fresh[0].tobytes())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif damage == "foreign":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    elif damage == "other key":
        np.savez(path, **{**arrays, "key": np.array("0" * 64)})
    elif damage == "row":
        np.savez(path, **{**arrays, "rows": np.full_like(arrays["rows"], len(NAMES))})
    else:
        path.write_bytes(b"")
    again = by_name(NAMES, ["Powers"], 3, cache_dir=tmp_path)
    np.testing.assert_array_equal(again[0], fresh[0])
    (warning,) = caplog.records
    assert str(path) in warning.getMessage()
    assert "computing the candidates again" in warning.getMessage()
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    rows, _ = by_name(NAMES, ["Powers"], 1, cache_dir=tmp_path)
    assert rows.tolist() == [[2]]
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in caplog.text


def test_long_work_says_so_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name(NAMES, ["Powers"], 1)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(name_retrieval, "QUIET_PAIRS", 0)
    by_name(NAMES, ["Powers"], 1)
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first == "candidates by name: 1 distinct mentions x 5 names"
    assert last.startswith("candidates by name: 1/1 mentions in ")


# ---- the data set's own candidates -------------------------------------------------------------


def corpus_of(*candidates: tuple[str, ...] | None) -> Corpus:
    entities = [Entity(id, id, "") for id in ("a", "b", "c")]
    mentions = [
        Mention(f"m{i}", "", "n", None, None, "test", f"s{i}", gold=None, candidates=listed)
        for i, listed in enumerate(candidates)
    ]
    return Corpus("corpus", entities, mentions, {}, {})


def test_given_candidates_keep_their_order() -> None:
    corpus = corpus_of(("c", "gone", "a", "c"), (), ("b", "a", "c"))
    rows, scores, counts = given(corpus, 2)
    assert rows.tolist() == [[2, 0], [PADDING, PADDING], [1, 0]]
    assert scores.tolist() == [[2, 1], [0, 0], [2, 1]]
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)
    assert counts == {"candidates_outside_kb": 1, "candidates_repeated": 1}


def test_given_refuses_a_mention_without_candidates() -> None:
    with pytest.raises(UserError, match="corpus: mention 'm1' comes without candidates"):
        given(corpus_of(("a",), None), 2)


@pytest.mark.skipif(
    not (WIKIMEL / "Wikidata-MEL.json").is_file(), reason=f"no WikiMEL under {WIKIMEL}"
)
def test_real_names_retrieve_as_measured() -> None:
    """The first 150 published test mentions; the whole split has 78.8 % at 1, 94.7 % at 10."""
    corpus = readers.read("wikimel", WIKIMEL, name="wikimel", split="published", valid_fraction=0.1)
    mentions = [mention for mention in corpus.mentions if mention.split == "test"][:150]
    row_of = {entity.id: row for row, entity in enumerate(corpus.entities)}
    names = [entity.name for entity in corpus.entities]
    rows, _ = by_name(names, [mention.name for mention in mentions], 10)
    gold = np.array([row_of[mention.gold or ""] for mention in mentions])
    hits = [int((rows[:, :k] == gold[:, None]).any(axis=1).sum()) for k in (1, 10)]
    assert hits == [113, 146]
