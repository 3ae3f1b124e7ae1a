"""What PostgreSQL finds is what a folder finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.kb.change import open_change
from data_pipeline.kb.text_index import text_index
from data_pipeline.readers import load
from data_pipeline.retrieval.union import by_union
from data_pipeline.sample import world
from data_pipeline.schema import PADDING
from tests.support import bases
from tests.support.bases import entity


def test_the_union_finds_the_same_golds(url: str, tmp_path: Path) -> None:
    """On the sample's world, by names and words."""
    root = world.generate(tmp_path / "sample", names=40, sizes=(20, 20, 200))
    corpus = load("sample", root, name="sample")
    mentions, found = [m for m in corpus.mentions if m.gold][:200], []
    for place in (tmp_path / "kb", url):
        with open_change(place) as change:
            kb = change.build(corpus.entities, name="sample")
        rows = by_union(kb, text_index(kb), mentions, 20).rows
        found.append(rows == kb.find([str(m.gold) for m in mentions])[:, None])
    hits = [some.any(1).mean() for some in found]
    first = [some[:, 0].mean() for some in found]
    assert hits[1] > hits[0] - 0.01 > 0.9, hits
    assert first[1] > first[0] - 0.05, first  # among entities of one name


def test_odd_names_are_found(url: str) -> None:
    rows = [
        entity("1", "Łódź", "miasto w Polsce"),
        entity("2", "東京都", "capital", "Tōkyō"),
        entity("3", "Москва (city)", "1e5 3d o'neil \\ back_slash", "Moscow"),
        entity("4", "John Fitzgerald Kennedy", "president", "% _ ' \" ; --"),
        entity('it\'s\n"a"\\/b', "x" * 10_000, "y " * 10_000),
        entity("6", "", "nameless"),
        entity("7", "ﷺ" * 300, "long when folded"),
    ]
    kb = bases.build(url, rows)
    index = text_index(kb)
    assert list(kb) == rows
    for name, row in [
        *(("Lodz", 0), ("ŁÓDŹ", 0), ("東京都", 1), ("tokyo", 1), ("МОСКВА", 2), ("moskow", 2)),
        *(("JFK", 3), ("J. F. K.", 3), ("J. Kennedy", 3), ("J F Kennedy", 3), ("Kenedy", 3)),
        *(("x" * 10_000, 4), ("ﷺ" * 300, 6)),
    ]:
        assert index.names(name, 1)[0].tolist() == [row], name
    assert kb.find(['it\'s\n"a"\\/b']).tolist() == [4]
    for text, row in (("Polsce!", 0), ("3D 1E5", 2), ("O'Neil", 2), ("Łódź", 0), ("slash", 2)):
        assert index.words(text, 1)[0].tolist() == [row], text
    for odd in ("", "...", "\0", "\ud800", "')--", "%_\\", "q" * 10_000, "\x1b[2J"):
        assert len(index.names(odd, 5)[0]) == len(index.words(odd, 5)[0]) == 0, odd
    assert [index.knows(one) for one in ("moscow", "москва", "jfk", "")] == [
        True,
        True,
        False,
        False,
    ]
    kb.verify()


@pytest.mark.parametrize("width", [4, 2100, 4100])
def test_nearest_are_those_of_all_rows(url: str, width: int) -> None:
    """By an index of vectors, of half vectors, and where there is none."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((60, width)).astype(np.float32) * 1e9
    table[7] = 0

    def fill(segment: Any, some: Any) -> dict[str, Any]:
        segment.write("entity_text", table[: len(some)])
        segment.write("entity_clip_text", table[: len(some)])
        return {}

    with open_change(url, fill) as change:
        change.build([entity(f"Q{i}") for i in range(60)], name="vectors")
    kb = bases.remove(url, "Q3", "Q5")
    queries = np.concatenate([table[[3, 9]] + 1e8, np.zeros((1, width), np.float32)])
    keys = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    cosine = keys @ (queries[:2] / np.linalg.norm(queries[:2], axis=1, keepdims=True)).T
    cosine[[3, 5, 7]] = -2
    wanted = np.argsort(-cosine.T, axis=1)
    for name in ("entity_text_edge", "entity_text", "entity_clip_text"):
        rows, cosines = text_index(kb).nearest(name, queries, 10)
        assert (rows.dtype, cosines.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(rows[:2], wanted[:, :10])
        np.testing.assert_allclose(
            cosines[:2], np.take_along_axis(cosine.T, wanted, 1)[:, :10], atol=2e-3
        )
        every = text_index(kb).nearest(name, queries[:1], 60)[0][0]
        assert {*every.tolist()} == {*range(60)} - {3, 5, 7} | {PADDING}
        assert (rows[2] == PADDING).all() or name == "entity_clip_text" or width == 4100
