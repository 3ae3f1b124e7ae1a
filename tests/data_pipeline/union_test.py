"""Candidates by the union: the documented sum worked out again, plainly, pair by pair."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from data_pipeline.kb.folded_names import bare
from data_pipeline.kb.knowledge_base import KnowledgeBase
from data_pipeline.kb.text_index import TextIndex
from data_pipeline.retrieval import union
from data_pipeline.retrieval.forms import fullest
from data_pipeline.retrieval.union import Candidates, Vectors, by_union
from data_pipeline.schema import PADDING, STAGES, Mention
from tests.support import bases
from tests.support.bases import entity
from tests.support.fixtures import refusal
from tests.support.tolerance import assert_close

ENTITIES = [
    entity("Q0", "Michael Jordan", "American basketball player of the Chicago Bulls", "MJ", "Air"),
    entity("Q1", "Michael I. Jordan", "professor of statistics at Berkeley"),
    entity("Q2", "Jordan", "country in the Middle East", "Hashemite Kingdom"),
    entity("Q3", "Jordan River", "river between two countries"),
    entity("Q4", "Chicago Bulls", "basketball team"),
    entity("Q5", "Berkeley (city)", "city with a professor in every street"),
    entity("Q6", "Robert Robertson", "the name of nobody here"),
    entity("Q7", "Jordan", "another of the same name"),
    entity("Q8", "", "nameless basketball"),
]
TEXTS = [
    ("When Michael Jordan played basketball in Chicago", "Jordan", 13),
    ("The professor spoke of statistics; Jordan was late", "Jordan", 35),
    ("MJ flew", "MJ", 0),
    ("", "Berkeley", None),
    ("only words: basketball and the river", "?!", None),
    ("", "", None),
    ("nothing", "qqq", None),
]
MENTIONS = [
    Mention(f"m{i}", text, name, start, start and start + len(name), "test", "", None)
    for i, (text, name, start) in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """With Q6 removed, and Q3 replaced by a row that comes last."""
    path = tmp_path_factory.mktemp("union") / "kb"
    bases.build(path, ENTITIES)
    bases.remove(path, "Q6")
    river = entity("Q3", "River Jordan", "river between two countries", "Jordan River")
    return bases.add(path, [river], update=True)


@pytest.fixture(scope="module")
def index(kb: KnowledgeBase) -> TextIndex:
    return TextIndex(kb)


def vectors(kb: KnowledgeBase, width: int = 5) -> tuple[np.ndarray, Vectors]:
    """Cosines [M, E], and what vectors find by them: the four nearest, fewer for mention 2."""
    rng = np.random.default_rng(0)
    mine, theirs = (rng.standard_normal((n, width)) for n in (len(MENTIONS), len(kb)))
    mine, theirs = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (mine, theirs))
    cosines = (mine @ theirs.T).astype(np.float32)
    nearest = np.argsort(np.where(kb.alive, -cosines, np.inf), axis=1)[:, :4].astype(np.int32)
    nearest[2, 1:] = PADDING
    return cosines, Vectors(nearest, lambda own, rows: cosines[own, rows])


def by_hand(
    kb: KnowledgeBase, index: TextIndex, mention: Mention, cosines: np.ndarray, near: Sequence[int]
) -> list[tuple[float, int, list[float], list[int]]]:
    """Every row that a stage finds, best first: score, row, evidence and ranks by stage."""
    form = fullest(mention.text, mention.name, mention.start, index.knows)
    stages = [
        index.names(mention.name, 100),
        index.names(form, 100),
        index.words(mention.text, 50),
        (np.array(near, int), None),
    ]
    found = []
    for row in sorted({int(row) for rows, _ in stages for row in rows}):
        evidence, ranks = [], []
        for stage, (rows, scores) in enumerate(stages):
            place = np.flatnonzero(rows == row)
            ranks.append(int(place[0]) if len(place) else PADDING)
            if stage == 3:
                value = float(cosines[row])
            else:
                value = float(scores[place[0]] / scores.max()) if len(place) else 0.0
            if stage < 2:
                query = default_process(mention.name if stage == 0 else form)
                called = [bare(kb[row].name), *kb[row].aliases]
                likeness = max(fuzz.WRatio(query, default_process(name)) for name in called)
                value = (value + likeness / 100) / 2
            evidence.append(value)
        early = max(2 / (1 + rank / 20) for rank in ranks if rank != PADDING)
        score = 3 * evidence[3] + evidence[0] + evidence[1] + evidence[2] / 2 + early
        found.append((score, row, evidence, ranks))
    return sorted(found, key=lambda one: (-round(one[0], 5), one[1]))


def assert_is(found: Candidates, at: int, wanted: list, r: int) -> None:
    wanted = wanted[:r]
    k = len(wanted)
    assert found.rows[at].tolist() == [row for _, row, _, _ in wanted] + [PADDING] * (r - k)
    assert_close(found.scores[at], [score for score, *_ in wanted] + [0.0] * (r - k))
    assert found.ranks[at, :k].tolist() == [ranks for *_, ranks in wanted]
    assert_close(found.evidence[at, :k].ravel(), [v for *_, values, _ in wanted for v in values])
    assert (found.ranks[at, k:] == PADDING).all()
    assert not found.evidence[at, k:].any()


@pytest.mark.parametrize("r", [1, 3, 30])
def test_the_score_is_the_documented_sum(kb: KnowledgeBase, index: TextIndex, r: int) -> None:
    """r larger than the base is padded."""
    cosines, near = vectors(kb)
    found = by_union(kb, index, MENTIONS, r, near)
    assert found.rows.shape == found.scores.shape == (len(MENTIONS), r)
    assert found.ranks.shape == found.evidence.shape == (len(MENTIONS), r, len(STAGES))
    assert [array.dtype.name for array in (found.rows, found.scores, found.ranks)] == [
        "int32",
        "float32",
        "int32",
    ]
    for i, mention in enumerate(MENTIONS):
        nearest = [row for row in near.nearest[i].tolist() if row != PADDING]
        assert_is(found, i, by_hand(kb, index, mention, cosines[i], nearest), r)


def test_without_vectors_names_and_words_find(kb: KnowledgeBase, index: TextIndex) -> None:
    found = by_union(kb, index, MENTIONS, 12)
    for i, mention in enumerate(MENTIONS):
        assert_is(found, i, by_hand(kb, index, mention, np.zeros(len(kb)), []), 12)
    first = [kb.ids[row] if row >= 0 else "" for row in found.rows[:, 0]]
    assert first[:4] == ["Q0", "Q1", "Q0", "Q5"]
    assert first[5:] == ["", ""]
    assert found.scores[3, 0] == pytest.approx(4)  # found first, by both of its names, and no words
    # Two of one name, nothing else said of them: the earlier row first.
    nothing_else = Mention("m", "", "Jordan", None, None, "test", "", None)
    rows = by_union(kb, index, [nothing_else], 2).rows[0]
    assert [kb[row].name for row in rows] == ["Jordan", "Jordan"]
    assert rows[0] < rows[1]


def test_who_is_removed_is_no_candidate(kb: KnowledgeBase, index: TextIndex) -> None:
    found = by_union(kb, index, MENTIONS, 30, vectors(kb)[1])
    kept = found.rows[found.rows != PADDING]
    assert kb.alive[kept].all()
    assert (~kb.alive).sum() == 2


def test_blocks_change_nothing(
    kb: KnowledgeBase, index: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = vectors(kb)[1]
    whole = by_union(kb, index, MENTIONS, 5, near)
    monkeypatch.setattr(union, "BLOCK", 2)
    pieces = by_union(kb, index, MENTIONS, 5, near)
    for name in ("rows", "scores", "ranks", "evidence"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


def test_an_alias_counts_as_much_as_the_name(tmp_path: Path) -> None:
    """The same two entities, once with and once without the alias that the mention has."""
    mention = Mention("m", "", "Air Jordan", None, None, "test", "", None)
    likeness = []
    for number, alias in enumerate((("Air Jordan",), ())):
        path = tmp_path / str(number)
        kb = bases.build(
            path, [entity("Q0", "Michael J.", "", *alias), entity("Q1", "Airport Jordan")]
        )
        found = by_union(kb, TextIndex(kb), [mention], 2)
        rows = found.rows[0].tolist()
        likeness.append(found.evidence[0, rows.index(0), 0] if 0 in rows else 0)
    assert likeness[0] == pytest.approx(1)  # BM25's best, WRatio 100
    assert likeness[1] == 0  # shares nothing, is not even found


def test_no_mentions_and_no_candidates(kb: KnowledgeBase, index: TextIndex) -> None:
    assert by_union(kb, index, [], 3).rows.shape == (0, 3)
    assert "retrieval.r = 0 must be at least 1" in refusal(lambda: by_union(kb, index, MENTIONS, 0))
