"""The command: errors sorted, mentions shown and drawn, and what cannot be meant or opened."""

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data_pipeline import schema
from data_pipeline.schema import Entity, UserError
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.explain import __main__ as command
from drin_jax.explain import cases, outcomes, terminal
from drin_jax.explain.sources import Sources
from drin_jax.workdir import FinishedRun, open_run
from tests.support import commands, fixtures
from tests.support.finished_runs import SIZES, case_of


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
    found = cases.Outcome(SplitView.of(store, "test"), scores)
    assert found.ranks.tolist() == [np.inf, np.inf, 2, 3, 2, 2, 1, 2]
    described = {f"Q{i}": Entity(f"Q{i}", "name", "" if i == 3 else "text") for i in range(4)}
    told = outcomes.summary(handmade, found, Sources({}, described), 0.02)
    wrong = told["wrong_mentions"]
    kinds = {w["id"]: w["kinds"] for w in wrong}
    assert kinds == {
        "m0": [outcomes.OUTSIDE],
        "m1": [outcomes.NOT_RETRIEVED, outcomes.NO_DESCRIPTION],
        "m2": [outcomes.OTHER],
        "m3": [outcomes.SAME_TEXT],
        "m4": [outcomes.NO_PICTURE],
        "m5": [outcomes.NO_PICTURE, outcomes.NEAR],
        "m7": [outcomes.OTHER],
    }
    assert (told["mentions"], told["wrong"]) == (8, 7)
    counts = {row["kind"]: (row["first"], row["all"]) for row in told["kinds"]}
    assert counts[outcomes.NEAR] == (0, 1)
    assert counts[outcomes.NO_PICTURE] == (2, 2)
    assert sum(first for first, _ in counts.values()) == 7
    assert (wrong[2]["gold"], wrong[2]["predicted"]) == ("Q1", "Q0")
    assert wrong[2]["gold_score"] == pytest.approx(0.3)
    assert wrong[0]["gold"] is wrong[0]["gold_score"] is wrong[1]["gold_score"] is None
    view = dataclasses.replace(found.view, gold=np.zeros(8, int))
    right = cases.Outcome(view, scores)
    with pytest.raises(UserError, match="has no mention of test wrong"):
        outcomes.summary(handmade, right, Sources({}, described), 0.02)


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
        outcomes.same_mention(other, drin, case_of(drin, 0))


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
    one = outcomes.mention_ids(drin, "test")[3]
    command.show_mention(drin, "test", one, 2, None, out)
    assert f"written: {out}" in capsys.readouterr().out
    assert out.read_text().startswith("<?xml")
    command.show_mention(drin, "test", one, 2, None, None)
    assert (drin.workdir / "explain" / f"{one}.png").is_file()


def test_no_number_and_no_name_is_cut_at_80_columns(drin: FinishedRun) -> None:
    """Another run beside it, and scores of three digits."""
    case = case_of(drin, 0)
    large = [dataclasses.replace(one, score=one.score - 123) for one in case.candidates]
    case = dataclasses.replace(case, candidates=large)
    path = "/picture of a long name.png"
    entities = {one.id: Entity(one.id, one.name, "a thing " * 20, path) for one in large}
    out = Console(width=80, file=io.StringIO())
    terminal.show_case(out, case, Sources({}, entities), 5, case)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    ranking = text[text.index("\n rank ") : text.index("edges of")]
    assert max(map(len, ranking.splitlines())) <= 80
    for one in case.shown(5):
        for told in (f" {one.score:.4f} ", f"{one.rank}: {one.score:.4f}", f" {one.id} "):
            assert told in ranking, told
        assert one.edges is not None
        for weight in one.edges[~np.isnan(one.edges)]:
            assert f"{weight:.2f}" in text[text.index("edges of") :]


def test_the_command_lists_and_refuses_in_one_line(drin: FinishedRun) -> None:
    here = f"--workdir={drin.workdir}"
    result = commands.run("drin_jax.explain", here, "--list=3", "--split=valid")
    assert result.returncode == 0, result.stderr
    surfaces = drin.store.strings("mention_surface")
    for row, name in zip(
        drin.store.array("valid_mention"), outcomes.mention_ids(drin, "valid")[:3], strict=False
    ):
        assert f"{name} " in result.stdout
        assert surfaces[int(row)] in result.stdout
    refused = commands.run("drin_jax.explain", here, "--mention=a", "--list=3")
    commands.assert_one_clear_line(refused, "exactly one of")
    for flag, least in (
        ("--list=0", "not a positive integer"),
        ("--near=nan", "must be at least 0"),
    ):
        refused = commands.run("drin_jax.explain", here, flag)
        commands.assert_one_clear_line(refused, least, code=2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "exactly one of"),
        ({"workdir": "", "list": 2}, "--workdir is missing"),
        ({"config": "a.py", "list": 2}, "--config is not taken here"),
        ({"mention": "a", "out": "a.jpg"}, r"--out a.jpg: ends in none of .png, .pdf, .svg"),
        ({"mention": "a", "json": "a.json"}, "--json goes with --errors only"),
        ({"errors": 2, "against": "b"}, "--against goes with --mention only"),
    ],
)
def test_flags_that_cannot_be_meant(values: dict[str, Any], words: str) -> None:
    unset = {"workdir": "w", "out": None}
    with pytest.raises(UserError, match=words):
        command.check(unset | values, values)
    assert command.check(unset | {"list": 1}, ["list"]) == "list"
