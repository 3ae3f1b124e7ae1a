"""Evaluation counts every mention once, and every table can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process

from data_pipeline import schema
from data_pipeline.schema import GraphSpec
from drin_jax.evaluation.evaluate import SplitView, baseline_scores, evaluate_split, valid_score
from drin_jax.evaluation.scoring import Setup, SplitScorer
from drin_jax.parallel.data_parallel import DataParallel
from tests.support.fixtures import tiny_store
from tests.support.random_graphs import split_model
from tests.support.tolerance import assert_close


@pytest.fixture
def view() -> SplitView:
    """Five mentions of three candidates: right, wrong, not retrieved, outside the KB, NIL."""
    return SplitView(
        split="test",
        candidates=np.array([[1, 1, 1]] * 4 + [[1, 0, 0]], bool),
        retrieval_score=np.array([[3, 2, 1], [3, 3, 1], [3, 2, 1], [3, 2, 1], [3, 0, 0]], float),
        text_edge=np.zeros((5, 3)),
        gold=np.array([0, 1, -1, -1, -1]),
        gold_any=np.array([0, 1, 7, -1, -1]),
        retrieved=10,
        gold_entity=np.array([4, 5, 6, schema.OUTSIDE_KB, schema.NIL]),
        groups={"clean": np.array([1, 0, 1, 0, 0], bool), "empty": np.zeros(5, bool)},
    )


def test_counts_and_recall_by_hand(view: SplitView) -> None:
    assert view.counts() == {
        "mentions": 5,
        "answerable": 2,
        "gold not retrieved": 1,
        "gold outside the knowledge base": 1,
        "NIL": 1,
    }
    assert view.recall() == {"recall@1": 1 / 4, "recall@5": 2 / 4, "recall@10": 3 / 4}


def test_scopes_subsets_and_ties_by_hand(view: SplitView) -> None:
    result = evaluate_split(view, {"name matching": view.retrieval_score}, (1, 3))
    every = result["subsets"]["all"]
    name = {ties: v["hits@1"] for ties, v in every["answerable"]["name matching"].items()}
    assert name == {"mean": 0.5, "optimistic": 1.0, "pessimistic": 0.5, "key": 0.5}
    assert every["end_to_end"]["name matching"]["mean"]["n"] == 5
    assert every["end_to_end"]["name matching"]["mean"]["hits@1"] == 1 / 5
    # The second mention's gold ties for first: rank 1.5 on average.
    assert every["answerable"]["name matching"]["mean"]["mrr"] == pytest.approx((1 + 1 / 1.5) / 2)
    assert result["subsets"]["clean"]["end_to_end"]["name matching"]["mean"]["hits@1"] == 1 / 2
    assert "empty" not in result["subsets"]
    assert result["group_sizes"] == {"clean": 2, "empty": 0}


def test_valid_score_is_over_answerable_mentions(view: SplitView) -> None:
    scores = np.array([[1, 0, 0], [5, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], float)
    assert valid_score(view, scores, "hits@1") == 0.5
    assert valid_score(view, scores, "mrr") == 0.75
    assert valid_score(view, scores, "hits@2") == 1.0


def test_batch_size_changes_no_score_and_loses_no_mention(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", mentions={"train": 4, "valid": 4, "test": 11})
    graphdef, params = split_model(store.sizes["text_width"], store.sizes["image_width"])
    scores = [
        SplitScorer(
            Setup(graphdef, params, DataParallel(impl), GraphSpec(), ""), batch=batch
        ).scores(params, store, "test")
        for impl, batch in (("shard_map", 4), ("shard_map", 11), ("pmap", 3))
    ]
    assert scores[0].shape == (11, store.sizes["r"])
    assert np.any(scores[0] != 0, axis=1).all()
    assert_close(scores[1], scores[0])
    assert_close(scores[2], scores[0])


def test_the_view_cuts_candidates_to_the_graph(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", mentions={"train": 4, "valid": 4, "test": 40}, r=5)
    whole, cut = SplitView.of(store, "test"), SplitView.of(store, "test", 2)
    assert cut.candidates.shape == (40, 2)
    lost = (whole.gold >= 2).sum()
    assert lost > 0
    assert whole.counts()["answerable"] - cut.counts()["answerable"] == lost
    assert cut.counts()["gold not retrieved"] - whole.counts()["gold not retrieved"] == lost


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("names", None),
        ("given", "order of the given candidates"),
        ("statistics", "first stage (statistics)"),
        ("dense", "first stage (vectors)"),
        ("vectors", "first stage (vectors)"),
    ],
)
def test_baselines_are_called_what_they_are(tmp_path: Path, method: str, first: str | None) -> None:
    """Names are compared whatever the first stage; what it ranks by is a row of its own."""
    store = tiny_store(tmp_path)
    store.made_from |= {"retrieval.method": method, "retrieval.scorer": "ratio"}
    view = SplitView.of(store, "test", 3)
    found = baseline_scores(store, view)
    assert list(found) == ["name matching", *([first] if first else []), "raw text edge R_tt"]
    if first is None:
        assert found["name matching"] is view.retrieval_score
        return
    assert found[first] is view.retrieval_score
    names, surfaces = store.strings("entity_name"), store.strings("mention_surface")
    rows, mentions = store.array("test_candidates"), store.array("test_mention")
    wanted = [
        [
            fuzz.ratio(*map(default_process, (surfaces[m], names[row]))) if row >= 0 else 0
            for row in own[:3]
        ]
        for m, own in zip(mentions, rows, strict=True)
    ]
    np.testing.assert_allclose(found["name matching"], wanted, rtol=1e-6)
