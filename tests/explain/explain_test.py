"""Finished runs explained: what is shown is what the model computed, and errors are sorted."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from configs import common
from data_pipeline import schema
from data_pipeline.graphs import GraphTables
from data_pipeline.schema import Entity, UserError
from drin_jax import run
from drin_jax.explain import __main__ as command
from drin_jax.explain import cases, choice, errors, figure, linked, sources, terminal
from drin_jax.explain.sources import Sources
from drin_jax.models.graph import edge_mask
from drin_jax.training.setup import set_up
from drin_jax.types import GraphBatch
from drin_jax.workdir import FinishedRun, open_run
from tests.support import commands, fixtures

SIZES = {"train": 16, "valid": 8, "test": 12}
ORANGE = (250, 120, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store under `store`, and raw files with the same ids under `raw`."""
    folder = tmp_path_factory.mktemp("explain")
    commands.small_store(folder / "store", mentions=SIZES)
    raw = folder / "raw"
    raw.mkdir()
    picture = np.full((40, 60, 3), ORANGE, np.uint8)
    picture[:3] = 0
    Image.fromarray(picture).save(raw / "orange.png")
    entities = [
        {"id": f"Q{i}", "name": f"Entität {i}", "description": f"thing {i}", "image": "orange.png"}
        for i in range(24)
    ]
    mentions = [
        {"id": f"m{i}", "text": f"see mention {i} and $5", "start": 4, "end": 11 + len(f"{i}") + 1,
         "image": "orange.png", "entity": None, "split": "test"}
        for i in range(sum(SIZES.values()))
    ]  # fmt: skip
    for name, rows in (("entities", entities), ("mentions", mentions)):
        (raw / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def train(folder: Path) -> Callable[..., Path]:
    """Trains a tiny run over the store and returns its workdir."""

    def trained(name: str, **fields: str) -> Path:
        config = common.get_config()
        config.data.root, config.data.store = str(folder / "raw"), str(folder / "store")
        config.model.width, config.train.epochs, config.train.batch = 8, 1, 16
        config.eval.batch = 16
        config.update_from_flattened_dict(fields)
        run.execute(config, folder / name)
        return folder / name

    return trained


@pytest.fixture(scope="module")
def drin(train: Callable[..., Path]) -> FinishedRun:
    return open_run(train("drin"))


@pytest.fixture(scope="module")
def bert(train: Callable[..., Path]) -> FinishedRun:
    return open_run(train("bert", **{"model.name": "bert"}))


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
        case = choice.ranker(drin).case("test", row)
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
            np.testing.assert_allclose(
                c.edges[:, there], np.asarray(aux["edges"])[:, row, there, slot], atol=1e-5
            )
            np.testing.assert_array_equal(
                c.edges[0, there], store.array("test_edges")[row, there, slot]
            )
        best_first = [c.score for c in case.candidates]
        assert best_first == sorted(best_first, reverse=True)
    assert absent > 0


def shown(case: cases.Case, found: Sources, capsys: pytest.CaptureFixture, n: int = 2,
          against: cases.Case | None = None) -> str:  # fmt: skip
    terminal.show_case(terminal.console(), case, found, n, against)
    return str(capsys.readouterr().out)


def test_the_terminal_shows_span_gold_and_arrows(
    drin: FinishedRun, bert: FinishedRun, capsys: pytest.CaptureFixture
) -> None:
    found = sources.read(drin.config)
    row = int(np.flatnonzero(np.asarray(drin.store.array("test_gold")) >= 0)[0])
    case = choice.ranker(drin).case("test", row)
    against = choice.same_mention(bert, drin, case)
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
    case, moving = choice.ranker(static).case("test", 0), choice.ranker(drin).case("test", 0)
    for c in case.candidates:
        assert c.edges is not None
        np.testing.assert_array_equal(c.edges, np.broadcast_to(c.edges[0], c.edges.shape))
        other = moving.find(c.id)
        assert other is not None
        assert other.edges is not None
        np.testing.assert_array_equal(c.edges[0], other.edges[0])
        assert not np.array_equal(c.edges[1], other.edges[1], equal_nan=True)
    both = choice.same_mention(static, drin, moving)
    out = shown(moving, sources.read(drin.config), capsys, n=9, against=both)
    assert f"against, rank {both.candidates[0].rank}" in out


def test_the_picture_shows_what_there_is(drin: FinishedRun, tmp_path: Path) -> None:
    case, path = choice.ranker(drin).case("test", 0), tmp_path / "new" / "case.png"
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
        found = choice.outcome(one, "test")
        assert linked.examples(one.config, choice.ranker(one), found) == told
        ids = choice.mention_ids(one, "test")
        assert len({mention["mention"] for mention in told["mentions"]}) == 3
        for mention in told["mentions"]:
            name, kind = mention["mention"].split(": ")
            case = choice.ranker(one).case("test", ids.index(name))
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
    case = choice.ranker(drin).case("test", 0)
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
    found, ranker = choice.outcome(drin, "test"), choice.ranker(drin)
    told = linked.examples(drin.config, dataclasses.replace(ranker, params=None), found)
    assert told["told"].startswith("no mention is shown: ")
    assert told["mentions"] == []
    config = drin.config.copy_and_resolve_references()
    config.data.root = ""
    told = linked.examples(config, ranker, found)
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
    case = choice.ranker(drin).case("test", 0)
    out = shown(case, found, capsys)
    assert found.missing in out
    assert case.candidates[0].name in out


def test_a_mention_is_chosen_by_id_or_drawn(drin: FinishedRun) -> None:
    rng = np.random.default_rng(0)
    ids = choice.mention_ids(drin, "test")
    assert [choice.choose(drin, "test", name, rng) for name in ids] == list(range(len(ids)))
    found = choice.outcome(drin, "test")
    chosen = [np.flatnonzero(found.wrong)[0], np.flatnonzero(~found.wrong)[0], len(ids) - 1]
    for row in map(int, chosen):
        candidates = choice.ranker(drin).case("test", row).candidates
        assert found.wrong[row] == (not candidates[0].gold)
        gold = [c.rank for c in candidates if c.gold]
        assert found.ranks[row] == (gold[0] if gold else np.inf)
    assert found.wrong[choice.choose(drin, "test", choice.RANDOM_WRONG, rng)]
    assert 0 <= choice.choose(drin, "test", choice.RANDOM, rng) < len(ids)
    elsewhere = choice.mention_ids(drin, "train")[0]
    with pytest.raises(
        UserError, match=f"{elsewhere}' is in train, not in test; add --split=train"
    ):
        choice.choose(drin, "test", elsewhere, rng)
    with pytest.raises(UserError, match=rf"no mention '{ids[2]}x'; the nearest ids are.*{ids[2]}"):
        choice.choose(drin, "test", f"{ids[2]}x", rng)


def test_every_kind_of_error_by_hand(
    drin: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight test mentions over entities 0 to 3; candidates are always 0, 1, 2."""
    arrays, strings = fixtures.tiny_arrays(entities=4, mentions={"test": 8}, r=3)
    golds = np.array([schema.NIL, 3, 1, 2, 1, 1, 0, 1], np.int32)
    arrays["test_mention"] = np.arange(8, dtype=np.int32)
    arrays["test_candidates"] = np.tile(np.arange(3, dtype=np.int32), (8, 1))
    arrays["test_gold_entity"] = golds
    arrays["test_gold"] = np.where(golds < 3, golds, schema.NOT_RETRIEVED).astype(np.int32)
    arrays["entity_has_text"][:] = arrays["entity_has_image"][:] = True
    arrays["mention_has_text"][:] = arrays["mention_has_image"][:] = True
    arrays["mention_has_image"][[4, 5]] = False
    strings["entity_name"][2] = strings["entity_name"][0]
    arrays["entity_text"][2] = arrays["entity_text"][0]
    monkeypatch.setattr(fixtures, "tiny_arrays", lambda: (arrays, strings))
    store = fixtures.tiny_store(tmp_path / "store")
    handmade = dataclasses.replace(drin, store=store)
    scores = np.tile(np.array([0.5, 0.3, 0.1], np.float32), (8, 1))
    scores[5, 1] = 0.49
    view = choice.SplitView.of(store, "test")
    ranks = np.array([np.inf, np.inf, 2, 3, 2, 2, 1, 2])
    found = cases.Outcome(view, scores, ranks, np.zeros(8, int))
    described = {f"Q{i}": Entity(f"Q{i}", "name", "" if i == 3 else "text") for i in range(4)}
    wrong = errors.wrong_mentions(handmade, "test", found, Sources({}, described), 0.02)
    kinds = {w.id: w.kinds for w in wrong}
    assert kinds == {
        "m0": (errors.OUTSIDE,),
        "m1": (errors.NOT_RETRIEVED, errors.NO_DESCRIPTION),
        "m2": (errors.OTHER,),
        "m3": (errors.SAME_TEXT,),
        "m4": (errors.NO_PICTURE,),
        "m5": (errors.NO_PICTURE, errors.NEAR),
        "m7": (errors.OTHER,),
    }
    told = errors.summary(handmade, "test", wrong, 0.02, "")
    assert (told["mentions"], told["wrong"]) == (8, 7)
    counts = {row["kind"]: (row["first"], row["all"]) for row in told["kinds"]}
    assert counts[errors.NEAR] == (0, 1)
    assert counts[errors.NO_PICTURE] == (2, 2)
    assert sum(first for first, _ in counts.values()) == 7
    assert (wrong[2].gold, wrong[2].predicted) == ("Q1", "Q0")
    assert wrong[2].gold_score == pytest.approx(0.3)
    assert wrong[0].gold is wrong[0].gold_score is wrong[1].gold_score is None
    right = dataclasses.replace(found, ranks=np.ones(8))
    with pytest.raises(UserError, match="has no mention of test wrong"):
        errors.wrong_mentions(handmade, "test", right, Sources({}, described), 0.02)


def test_a_run_that_cannot_be_opened_says_why(
    drin: FinishedRun, bert: FinishedRun, tmp_path: Path
) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(drin.workdir, tmp_path / name))

    def refused(workdir: Path, match: str, error: type[Exception] = UserError) -> None:
        with pytest.raises(error, match=match) as caught:
            open_run(workdir)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "is no folder, so it holds no finished run")
    unfinished = copy("unfinished")
    (unfinished / "report.json").unlink()
    refused(unfinished, r"has no report.json, so it holds no finished run")
    bare = copy("bare")
    shutil.rmtree(bare / "checkpoints")
    refused(bare, "no checkpoint; train again")
    assert not (bare / "checkpoints").exists()  # a reader makes nothing
    (bare / "checkpoints" / "best").mkdir(parents=True)
    refused(bare, "checkpoints of an older version .* train again in another --workdir")
    moved = copy("moved")
    fields = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(fields | {"data.store": str(tmp_path / "no")}))
    refused(moved, "the feature store of .* is gone")
    old = {name: value for name, value in fields.items() if name != "model.layers"}
    (moved / "config.json").write_text(json.dumps(old))
    refused(moved, "made by another version of this program")
    (moved / "config.json").write_text(json.dumps(fields | {"model.width": 16}))
    refused(moved, r"does not fit .*config.json \(.* is \(8,\), should be \(16,\)")
    (moved / "config.json").write_text("{")
    refused(moved, "config.json: unreadable")
    (moved / "config.json").write_text(json.dumps(fields | {"text.entity": "{name}"}))
    refused(moved, "made with other settings", UserError)
    other = dataclasses.replace(bert, store=fixtures.tiny_store(tmp_path / "tiny"))
    with pytest.raises(UserError, match="made from other data"):
        choice.same_mention(other, drin, choice.ranker(drin).case("test", 0))


def test_errors_are_counted_shown_and_written(
    drin: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "new" / "errors.json"
    command.show_errors(drin, "test", 1, 0.02, file)
    out, told = capsys.readouterr().out, json.loads(file.read_text())
    assert len(told["wrong_mentions"]) == told["wrong"] > 0
    assert f"test: {told['wrong']} of {SIZES['test']} mentions wrong" in out
    firsts = [w["kinds"][0] for w in told["wrong_mentions"]]
    for row in told["kinds"]:
        assert row["first"] == firsts.count(row["kind"])
        assert (f"{row['kind']}:" in out) == (row["first"] > 0)
    assert out.count("predicted") == len(set(firsts))


def test_a_mention_is_shown_and_drawn(
    drin: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "one.svg"
    one = choice.mention_ids(drin, "test")[3]
    command.show_mention(drin, "test", one, 2, None, out)
    assert f"written: {out}" in capsys.readouterr().out
    assert out.read_text().startswith("<?xml")
    command.show_mention(drin, "test", one, 2, None, None)
    assert (drin.workdir / "explain" / f"{one}.png").is_file()


def test_the_command_lists_and_refuses_in_one_line(drin: FinishedRun) -> None:
    here = f"--workdir={drin.workdir}"
    result = commands.run("drin_jax.explain", here, "--list=3", "--split=valid")
    assert result.returncode == 0, result.stderr
    surfaces = drin.store.strings("mention_surface")
    for row, name in zip(
        drin.store.array("valid_mention"), choice.mention_ids(drin, "valid")[:3], strict=False
    ):
        assert f"{name} " in result.stdout
        assert surfaces[int(row)] in result.stdout
    refused = commands.run("drin_jax.explain", here, "--mention=a", "--list=3")
    commands.assert_one_clear_line(refused, "exactly one of")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "exactly one of"),
        ({"workdir": "", "list": 2}, "--workdir is missing"),
        ({"config": "a.py", "list": 2}, "--config is not taken here"),
        ({"mention": "a", "out": "a.jpg"}, r"--out a.jpg: ends in none of .png, .pdf, .svg"),
        ({"mention": "a", "json": "a.json"}, "--json goes with --errors only"),
        ({"errors": 2, "against": "b"}, "--against goes with --mention only"),
        ({"list": 0}, "--list is 0; it must be at least 1"),
        ({"errors": 2, "near": float("nan")}, "--near is nan; it must be at least 0"),
    ],
)
def test_flags_that_cannot_be_meant(values: dict[str, Any], words: str) -> None:
    unset = dict.fromkeys(("out", *command.LEAST)) | {"workdir": "w"}
    with pytest.raises(UserError, match=words):
        command.check(unset | values, values)
    assert command.check(unset | {"list": 1}, ["list"]) == "list"
