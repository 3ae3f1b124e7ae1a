"""A mention explained: what is shown and drawn is what the model computed."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from data_pipeline import output, schema
from data_pipeline.loader import GraphTables
from data_pipeline.schema import UserError
from drin_jax.explain import cases, figure, linked, outcomes, sources, terminal
from drin_jax.explain.sources import Sources
from drin_jax.models.graph import edge_mask
from drin_jax.training.setup import set_up
from drin_jax.types import GraphBatch
from drin_jax.workdir import FinishedRun, open_run
from tests.support.finished_runs import ORANGE, SIZES, case_of
from tests.support.tolerance import assert_close


def test_edges_and_scores_are_those_of_the_models_own_pass(drin: FinishedRun) -> None:
    store = drin.store
    rows = np.arange(SIZES["test"])
    batch = GraphTables(store, "test").batch(rows)
    graphs = GraphBatch.from_host({name: jnp.asarray(array) for name, array in batch.items()})
    model = nnx.merge(drin.setup.graphdef, drin.params)
    scores, aux = model(graphs)
    mask = np.asarray(edge_mask(graphs, schema.RELATIONS))
    table, ids = store.array("test_candidates"), store.strings("entity_id")
    absent = 0
    for row in rows[::3].tolist():
        case = case_of(drin, row)
        slots = {ids[int(e)]: i for i, e in enumerate(table[row]) if e != schema.PADDING}
        assert {c.id for c in case.candidates} == set(slots)
        assert [c.rank for c in case.candidates] == list(range(1, len(slots) + 1))
        assert case.layers == 2
        for c in case.candidates:
            slot = slots[c.id]
            assert c.score == pytest.approx(float(scores[row, slot]), abs=1e-5)
            assert c.gold == (slot == store.array("test_gold")[row])
            assert c.edges is not None
            there = mask[row, :, slot]
            absent += int(np.sum(~there))
            assert np.array_equal(~np.isnan(c.edges), np.broadcast_to(there, (3, 4)))
            assert_close(c.edges[:, there], aux["edges"][:, row, there, slot])
            np.testing.assert_array_equal(
                c.edges[0, there], store.array("test_edges")[row, there, slot]
            )
        best_first = [c.score for c in case.candidates]
        assert best_first == sorted(best_first, reverse=True)
    assert absent > 0


def shown(case: cases.Case, found: Sources, capsys: pytest.CaptureFixture, n: int = 2,
          against: cases.Case | None = None) -> str:  # fmt: skip
    terminal.show_case(output.console(), case, found, n, against)
    return str(capsys.readouterr().out)


def test_the_terminal_shows_span_gold_and_arrows(
    drin: FinishedRun, bert: FinishedRun, capsys: pytest.CaptureFixture
) -> None:
    found = sources.read(drin.config)
    row = int(np.flatnonzero(np.asarray(drin.store.array("test_gold")) >= 0)[0])
    case = case_of(drin, row)
    against = outcomes.same_mention(bert, drin, case)
    out = shown(case, found, capsys, against=against)
    assert f"see [[mention {case.id[1:]}]] and $5" in out
    assert case.gold in out
    assert "thing" in out
    assert f"against: {bert.system}" in out
    edges = [c.edges for c in case.shown(2) if c.edges is not None]
    weights = [w.tolist() for e in edges for w in e.T if not np.isnan(w).any()]
    told = [" → ".join(map(cases.two_decimals, w)) for w in weights]
    assert told
    assert [text for text in told if text not in out] == []
    assert len(case.shown(1)) == (1 if case.candidates[0].gold else 2)  # the gold is always there
    alone = shown(against, found, capsys)
    assert "has no edges" in alone
    assert "→" not in alone
    drin_beside = shown(against, found, capsys, against=case)
    assert "→" in drin_beside


def test_static_edges_stay_as_they_were(drin: FinishedRun, capsys: pytest.CaptureFixture) -> None:
    config = drin.config.copy_and_resolve_references()
    config.graph.edges = "static"
    setup = set_up(config, drin.store)
    static = dataclasses.replace(drin, config=config, setup=setup, params=setup.params)
    case, moving = case_of(static, 0), case_of(drin, 0)
    for c in case.candidates:
        assert c.edges is not None
        np.testing.assert_array_equal(c.edges, np.broadcast_to(c.edges[0], c.edges.shape))
        other = moving.find(c.id)
        assert other is not None
        assert other.edges is not None
        np.testing.assert_array_equal(c.edges[0], other.edges[0])
        assert not np.array_equal(c.edges[1], other.edges[1], equal_nan=True)
    both = outcomes.same_mention(static, drin, moving)
    out = shown(moving, sources.read(drin.config), capsys, n=9, against=both)
    assert f"against, rank {both.candidates[0].rank}" in out


def test_the_picture_shows_what_there_is(drin: FinishedRun, tmp_path: Path) -> None:
    case, path = case_of(drin, 0), tmp_path / "new" / "case.png"
    assert figure.draw(path, case, sources.read(drin.config), 2, None) == ""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    height, width, _ = pixels.shape
    assert width > 1500
    assert height > 400
    orange: np.ndarray = np.all(np.abs(pixels.astype(int) - ORANGE) < 4, axis=2)
    half = int(0.3 * width)
    assert orange[:, :half].sum() > 50_000  # the mention's, and at least two candidates'
    assert orange[:, half:].sum() > 15_000
    blank = (pixels == 255).all(2).mean()
    assert 0.2 < blank < 0.97
    gone = Sources({}, {}, "texts and pictures are not at hand: gone")
    unseen = dataclasses.replace(case, surface="\U0001fbf9\U000e0fff")
    assert "\U0001fbf9" in figure.draw(path, unseen, gone, 2, case)
    with Image.open(path) as file:
        again = np.asarray(file.convert("RGB"))
    assert not np.all(np.abs(again.astype(int) - ORANGE) < 4, axis=2).any()


def test_a_run_ends_with_three_mentions_that_it_linked(
    drin: FinishedRun, bert: FinishedRun
) -> None:
    for one in (drin, bert):
        told = one.report["examples"]
        assert told["told"] == "3 mentions of test, drawn with seed 0"
        found = outcomes.outcome(one, "test")
        assert linked.examples(one, found) == told
        ids = outcomes.mention_ids(one, "test")
        assert len({mention["mention"] for mention in told["mentions"]}) == 3
        for mention in told["mentions"]:
            name, kind = mention["mention"].split(": ")
            case = case_of(one, ids.index(name))
            winner, runner_up = case.candidates[:2]
            verdict = "right" if winner.gold else "wrong"
            assert kind.startswith(verdict)
            told_first = f"{winner.name} ({winner.id}), score {winner.score:.3f}, {verdict}: thing"
            assert mention["linked to"].startswith(told_first)
            assert f"{runner_up.name} ({runner_up.id})" in mention["runner-up"]
            assert f"see [[mention {name[1:]}]] and $5" in mention["text"]
            assert mention["picture"].endswith("orange.png")
            assert ("right is" in mention) == (verdict == "wrong")
    assert "no edges; no picture plays a part" in bert.report["examples"]["mentions"][0]["why"]
    assert "drawn with seed 0" in (drin.workdir / "report.md").read_text()


def test_what_decided_is_told_by_hand(drin: FinishedRun) -> None:
    case = case_of(drin, 0)
    first, second = case.candidates[:2]
    nan = np.nan
    edges = [np.array([[0, 0, 0, 0], row, [9, 9, 9, 9]]) for row in ([1, nan, 2, 1], [1, 1, 0, 1])]
    pair = [dataclasses.replace(first, edges=edges[0]), dataclasses.replace(second, edges=edges[1])]
    seen = dataclasses.replace(case, candidates=tuple(pair))
    swapped = [dataclasses.replace(c, score=-c.score) for c in reversed(pair)]
    hidden = dataclasses.replace(case, candidates=tuple(swapped))
    assert linked.why(seen, hidden) == [
        "in the last layer the winner leads most by the edge vt, of the mention's picture and the "
        "entity's text: 2.00 against 0.00",
        f"with all pictures hidden {second.name} ({second.id}) would win",
    ]
    behind = dataclasses.replace(seen, candidates=tuple(reversed(pair)))
    assert (
        "edge tv, of the mention's text and the entity's picture: 1.00 against no edge"
        in (linked.why(behind, behind)[0])
    )
    assert linked.why(behind, behind)[1] == "no picture plays a part"


def test_examples_never_lose_a_finished_run(drin: FinishedRun, folder: Path) -> None:
    found = outcomes.outcome(drin, "test")
    told = linked.examples(dataclasses.replace(drin, params=None), found)
    assert told["told"].startswith("no mention is shown: ")
    assert told["mentions"] == []
    config = drin.config.copy_and_resolve_references()
    config.data.root = ""
    told = linked.examples(dataclasses.replace(drin, config=config), found)
    assert "texts and pictures are not at hand: data.root is empty" in told["told"]
    assert told["mentions"][0]["text"].startswith("[[")


def test_without_raw_files_names_stay(
    drin: FinishedRun, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    raw, away = folder / "raw", folder / "away"
    raw.rename(away)
    try:
        found = sources.read(open_run(drin.workdir).config)
        assert not raw.exists()
    finally:
        away.rename(raw)
    assert found.missing == f"texts and pictures are not at hand: data.root = {raw} is gone"
    case = case_of(drin, 0)
    out = shown(case, found, capsys)
    assert found.missing in out
    assert case.candidates[0].name in out


def test_a_mention_is_chosen_by_id_or_drawn(drin: FinishedRun) -> None:
    rng = np.random.default_rng(0)
    ids = outcomes.mention_ids(drin, "test")
    assert [outcomes.choose(drin, "test", name, rng) for name in ids] == list(range(len(ids)))
    found = outcomes.outcome(drin, "test")
    chosen = [np.flatnonzero(found.wrong)[0], np.flatnonzero(~found.wrong)[0], len(ids) - 1]
    for row in map(int, chosen):
        candidates = case_of(drin, row).candidates
        assert found.wrong[row] == (not candidates[0].gold)
        gold = [c.rank for c in candidates if c.gold]
        assert found.ranks[row] == (gold[0] if gold else np.inf)
    assert found.wrong[outcomes.choose(drin, "test", outcomes.RANDOM_WRONG, rng)]
    assert 0 <= outcomes.choose(drin, "test", outcomes.RANDOM, rng) < len(ids)
    elsewhere = outcomes.mention_ids(drin, "train")[0]
    with pytest.raises(
        UserError, match=f"{elsewhere}' is in train, not in test; add --split=train"
    ):
        outcomes.choose(drin, "test", elsewhere, rng)
    with pytest.raises(UserError, match=rf"no mention '{ids[2]}x'; the nearest ids are.*{ids[2]}"):
        outcomes.choose(drin, "test", f"{ids[2]}x", rng)
