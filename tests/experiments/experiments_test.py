"""Suites and their runner: what is run, kept, skipped, refused, and gone on with after a kill."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipeline.store.reader import Store
from drin_jax.evaluation.evaluate import SplitView
from drin_jax.experiments import results, seed_runs, suites
from drin_jax.experiments.runner import Runner
from drin_jax.experiments.suites import RowPlan, Suite
from drin_jax.training.session import Session
from tests.support.commands import small_store, start, user_error

FIELDS = {
    "model.width": 8,
    "model.layers": 1,
    "train.epochs": 6,
    "train.batch": 16,
    "train.learning_rate": 0.01,
    "eval.batch": 16,
    "eval.ks": (1, 3),
}
# Two rows that train, one whose losses are not finite, one that its store cannot serve, one that
# is known beforehand not to run.
TRIAL = Suite(
    "trial",
    "A trial",
    "for this test",
    lambda config: [
        RowPlan("bert", "BERT", {"model.name": "bert"}),
        RowPlan("drin", "DRIN", {"model.name": "drin"}),
        RowPlan("wild", "Wild", {"model.name": "bert", "train.learning_rate": 1e38}),
        RowPlan("wide", "Wide", {"graph.r": 99}),
        RowPlan("never", "Never", {}, why_not="for a reason"),
    ],
    "drin",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(
        tmp_path_factory.mktemp("store") / "store",
        mentions={"train": 60, "valid": 20, "test": 30},
        entities=40,
        r=6,
    )


def config_over(store: Path, **more: Any) -> ConfigDict:
    config = common.get_config()
    config.update_from_flattened_dict(FIELDS | {"data.store": str(store)} | more)
    return config


@pytest.fixture(scope="module")
def trial(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished suite of two seeds."""
    workdir = tmp_path_factory.mktemp("trial")
    failed = Runner(TRIAL, config_over(store), workdir, seeds=(0, 1)).run()
    assert failed == ["wild"]
    return workdir


@pytest.fixture
def copy(trial: Path, tmp_path: Path) -> Path:
    """A copy of that workdir, to change."""
    shutil.copytree(trial, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_row_is_there_with_its_runs_or_its_reason(trial: Path) -> None:
    found = results.load(trial)
    assert [row.row for row in found.rows] == ["bert", "drin", "wild", "wide", "never"]
    assert [len(row.runs) for row in found.rows] == [2, 2, 0, 0, 0]
    assert [row.why_not for row in found.rows[:2]] == ["", ""]
    assert "not finite" in found.rows[2].why_not
    assert found.rows[2].why_not.startswith("failed: seed 0: ")
    assert "graph.r is 99" in found.rows[3].why_not
    assert found.rows[4].why_not == "not run: for a reason"
    assert (found.against, found.split, found.first["ks"]) == ("drin", "test", [1, 3])
    assert found.first["splits"]["test"]["counts"]["mentions"] == 30
    assert "name matching" in found.untrained["test"]["all"]["end_to_end"]
    assert {"retrieval/test", "raw files"} <= {finding["finding"] for finding in found.audit}
    assert {"jax", "python", "device", "cores"} <= set(found.environment)
    assert {c.row for c in found.comparisons} == {"bert"}
    assert found.comparisons[0].subset == "all"


def test_a_run_holds_scores_that_give_its_metrics(trial: Path, store: Path) -> None:
    row = results.load(trial).row("drin")
    assert row is not None
    first, second = row.runs
    opened = Store.open(store)
    view = SplitView.of(opened, "test")
    for one in (first, second):
        scores, ranks = np.load(one.folder / "scores_test.npy"), one.ranks("test")
        assert scores.shape == (30, 6)
        top = np.where(view.candidates, scores, -np.inf).argmax(1) == view.gold
        np.testing.assert_array_equal(ranks == 1, top)
        assert one.metrics("test")["hits@1"] == pytest.approx(top.mean())
        assert one.data["config"]["seed"] == one.seed
        assert len(one.data["valid_curve"]) == len(one.data["loss_curve"]) == 6
        assert one.data["best_score"] == max(one.data["valid_curve"])
        assert one.data["gold_in_graph"] is False
        assert one.metrics("test", "no such subset") == {}
    assert not np.array_equal(first.ranks("test"), second.ranks("test"))
    found = [one.metrics("test")["mrr"] for one in row.runs]
    assert row.spread("mrr", "test") == results.Spread.of(found)


def test_the_edges_before_the_first_layer_are_the_stores(trial: Path, store: Path) -> None:
    row = results.load(trial).row("drin")
    assert row is not None
    opened = Store.open(store)
    view = SplitView.of(opened, "test")
    edges = np.asarray(opened.array("test_edges"))
    is_gold = np.arange(6) == view.gold[:, None]
    mention = np.asarray(opened.array("test_mention"))
    entity = np.maximum(np.asarray(opened.array("test_candidates")), 0)
    there = {
        side: [opened.array(f"{side}_has_{kind}")[rows] for kind in ("text", "image")]
        for side, rows in (("mention", mention), ("entity", entity))
    }
    recorded = row.runs[0].data["edges"]["all"]
    for relation in range(4):
        exists = view.candidates & there["mention"][relation // 2][:, None]
        exists &= there["entity"][relation % 2]
        for name, slots in (("gold", is_gold), ("other", ~is_gold)):
            mean = edges[:, relation][exists & slots].mean()
            assert recorded[name][0][relation] == pytest.approx(mean, abs=2e-6)
    assert np.shape(recorded["gold"]) == (2, 4)
    bert = results.load(trial).row("bert")
    assert bert is not None
    assert "edges" not in bert.runs[0].data


def never(*args: Any, **options: Any) -> None:
    raise AssertionError("a finished run was trained again")


def test_a_second_start_trains_nothing_and_says_so(
    copy: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(seed_runs, "train_seed", never)
    wanted: dict[str, Any] = {"seeds": (0, 1), "rows": ("bert", "drin")}
    before = {path: path.read_bytes() for path in copy.rglob("run.json")}
    reasons = [row.why_not for row in results.load(copy).rows]
    assert Runner(TRIAL, config_over(store), copy, **wanted).run() == []
    assert capsys.readouterr().err.count("nothing trained") == 2
    assert {path: path.read_bytes() for path in copy.rglob("run.json")} == before
    assert [row.why_not for row in results.load(copy).rows] == reasons  # of rows not asked for


def test_more_seeds_train_only_the_new_ones(
    copy: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    train_seed = seed_runs.train_seed

    def note(session: Session, seed: int, folder: Path, title: str) -> seed_runs.SeedRun:
        asked.append(seed)
        if seed == 3:
            raise RuntimeError("the disk\nis full")
        return train_seed(session, seed, folder, title)

    monkeypatch.setattr(seed_runs, "train_seed", note)
    wanted: dict[str, Any] = {"seeds": range(4), "rows": ("bert",)}
    assert Runner(TRIAL, config_over(store), copy, **wanted).run() == ["bert"]
    assert asked == [2, 3]
    row = results.load(copy).row("bert")
    assert row is not None
    assert [one.seed for one in row.runs] == [0, 1, 2]
    assert row.why_not == "failed: RuntimeError: the disk is full"
    assert "Traceback" in (copy / "runs" / "bert" / "failure.txt").read_text()


def test_another_suite_or_config_is_refused(copy: Path, store: Path) -> None:
    def starting(suite: Suite, **more: Any) -> str:
        config = config_over(store, **more)
        return user_error(lambda: Runner(suite, config, copy, seeds=(0,)))

    assert "suite 'trial' -> 'table2'" in starting(suites.get("table2"))
    assert "train.epochs 6 -> 7" in starting(TRIAL, **{"train.epochs": 7})
    wanted: dict[str, Any] = {"seeds": (0,), "rows": ("bart",)}
    told = user_error(lambda: Runner(TRIAL, config_over(store), copy, **wanted))
    assert "'bart'; known are bert, drin" in told


def test_what_is_damaged_or_empty_is_told_in_a_line(copy: Path, tmp_path: Path) -> None:
    assert "suite.json: no such file; run python -m" in user_error(lambda: results.load(tmp_path))
    (copy / "runs" / "bert" / "seed0" / "run.json").write_text("{")
    assert "run.json: unreadable" in user_error(lambda: results.load(copy))
    (copy / "runs" / "bert" / "seed0" / "run.json").write_text("[" * 100_000)
    assert "run.json: unreadable (nested too deeply)" in user_error(lambda: results.load(copy))
    shutil.rmtree(copy / "runs")
    assert "no finished run to report" in user_error(lambda: results.load(copy))
    suite = results.read_json(copy / results.SUITE_JSON)
    for rows, told in (([], "no finished run"), ([{"row": "../x", "title": ""}], "names no row")):
        (copy / results.SUITE_JSON).write_text(json.dumps(suite | {"rows": rows}))
        assert told in user_error(lambda: results.load(copy))


def test_a_killed_suite_goes_on_where_it_was(trial: Path, store: Path, tmp_path: Path) -> None:
    """SIGKILL during the training of table2's BERT row; its runs equal those never disturbed."""
    flags = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    args = ["table2", "--config=configs/common.py", "--seeds=2", "--rows=bert", *flags]
    process = start(
        "drin_jax.experiments", *args, f"--workdir={tmp_path}", f"--config.data.store={store}"
    )
    row, deadline = tmp_path / "runs" / "bert", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        metrics = row / "training-1" / "metrics.jsonl"
        if metrics.is_file() and metrics.stat().st_size:
            break
        time.sleep(0.002)
    process.kill()
    _, told = process.communicate()
    assert sorted(path.name for path in row.iterdir()) == ["seed0", "training-1"], told
    assert (row / "seed0" / "run.json").is_file()  # a seed is recorded before the next begins
    wanted: dict[str, Any] = {"seeds": (0, 1), "rows": ("bert",)}
    assert Runner(suites.get("table2"), config_over(store), tmp_path, **wanted).run() == []
    assert sorted(path.name for path in row.iterdir()) == ["seed0", "seed1"]
    theirs = results.load(trial).row("bert")
    ours = results.load(tmp_path).row("bert")
    assert ours is not None
    assert theirs is not None
    for one, other in zip(ours.runs, theirs.runs, strict=True):
        files = [run.folder / "scores_test.npy" for run in (one, other)]
        np.testing.assert_array_equal(*map(np.load, files))
        assert one.data["loss_curve"] == other.data["loss_curve"]
        assert one.data["best_step"] == other.data["best_step"]
