"""Commands with the system of relations of many values: from raw files, on any devices, stopped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import EVIDENCE, EVIDENCE_COLUMNS, RELATIONS
from data_pipeline.store.reader import Store
from drin_jax.explain import cases
from drin_jax.workdir import open_run
from tests.main_test import arguments, assert_same_run, stop
from tests.support import given_world
from tests.support.commands import assert_one_clear_line, run, small_store, step_lines
from tests.support.tolerance import TRAINED, assert_close

ALL = str((*RELATIONS, *EVIDENCE)).replace(" ", "")
OURS = (
    "--config.model.name=relational",
    f"--config.graph.relations={ALL}",
    "--config.model.state=16",
    "--config.model.drop_relations=0.1",
    "--config.model.drop_pictures=0.2",
    "--config.model.members=2",
    "--config.loss.form=softmax",
    "--config.train.average=0.9",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store"
    mentions = {"train": 230, "valid": 40, "test": 50}
    return small_store(path, mentions=mentions, entities=60, r=6, evidence=True)


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    result = run("drin_jax.main", *arguments(store, workdir, *OURS))
    assert result.returncode == 0, result.stderr
    return workdir


def losses(workdir: Path) -> list[float]:
    return [line["loss"] for line in step_lines(workdir) if "loss" in line]


def test_it_learns(whole: Path) -> None:
    values = losses(whole)
    assert np.mean(values[-15:]) < np.mean(values[:15]) - 0.1


def test_a_stopped_run_drops_the_same_as_a_whole_one(
    store: Path, whole: Path, tmp_path: Path
) -> None:
    args = arguments(store, tmp_path, *OURS)
    stop(args, tmp_path)
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("more", [(), ("--config.train.accumulate=2",)])
def test_eight_devices_and_parts_drop_the_same_as_one(
    store: Path, whole: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    args = arguments(store, tmp_path, *OURS, *more)
    result = run("drin_jax.main", *args, devices=8)
    assert result.returncode == 0, result.stderr
    assert_close(losses(tmp_path)[:30], losses(whole)[:30], limit=TRAINED)


def test_a_store_without_evidence_says_what_adds_it(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    result = run("drin_jax.main", *arguments(store, tmp_path / "work", *OURS))
    assert_one_clear_line(result, "holds no evidence", "drin_jax.extract", "model.name=relational")


def test_a_store_with_other_values_is_refused(store: Path, tmp_path: Path) -> None:
    other = shutil.copytree(store, tmp_path / "store")
    meta = json.loads((other / "store.json").read_text())
    meta["report"]["evidence"] = {"names": ["likeness"]}
    meta.pop("checksum", None)
    (other / "store.json").write_text(json.dumps(meta))
    result = run("drin_jax.main", *arguments(other, tmp_path / "work", *OURS))
    assert_one_clear_line(result, "hold other values than this program's", "delete it")


def test_drin_has_no_use_for_relations_beyond_the_papers(store: Path, tmp_path: Path) -> None:
    flags = ("--config.graph.relations=('names',)", "--config.model.name=drin")
    result = run("drin_jax.main", *arguments(store, tmp_path, *flags))
    assert_one_clear_line(result, "drin knows none", "model.name='relational'")


def test_from_raw_files_to_a_report(tmp_path: Path) -> None:
    """Texts alone; the relations are added to a store that was there before."""
    root = given_world.write(tmp_path / "given", *given_world.rows())
    plain = given_world.flags(root, tmp_path / "work", tmp_path / "encoder")
    plain.append("--config.retrieval.method=union")
    assert run("drin_jax.extract", *plain).returncode == 0
    before = Store.open(tmp_path / "work" / "store")
    assert before.lacks(("evidence",))
    result = run("drin_jax.main", *plain, *OURS)
    assert result.returncode == 0, result.stderr
    store = Store.open(tmp_path / "work" / "store")
    store.verify()
    assert {name: store.specs[name] for name in before.specs} == before.specs
    values = np.asarray(store.array("train_evidence"), np.float32)
    assert values.shape[-1] == len(EVIDENCE_COLUMNS)
    there = np.asarray(store.array("train_candidates")) >= 0
    assert not values[~there].any()
    known = {name for name, column in zip(EVIDENCE_COLUMNS, values.T, strict=True) if column.any()}
    assert known == {*EVIDENCE} - {"pictures", "context", "years"}  # which are in no text here
    assert (tmp_path / "work" / "report.md").exists()


def test_nil_is_learnt_from_golds_that_are_withheld(tmp_path: Path) -> None:
    """In every split; the report decides with the threshold of valid."""
    root = given_world.write(tmp_path / "given", *given_world.rows())
    flags = given_world.flags(root, tmp_path / "work", tmp_path / "encoder")
    more = ("--config.retrieval.method=union", "--config.data.withheld=0.6")
    result = run("drin_jax.main", *flags, *OURS, *more, "--config.model.nil=True")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    test = report["splits"]["test"]
    outside = test["counts"]["gold outside the knowledge base"]
    assert outside > 0
    assert test["decisions"]["nil"]["n"] == outside
    assert report["calibration"]["none"] is not None
    assert "NIL F1" in (tmp_path / "work" / "report.md").read_text()
    assert b"</svg>" in (tmp_path / "work" / "calibration.svg").read_bytes()


def test_a_release_has_no_golds_to_withhold(tmp_path: Path) -> None:
    flags = ("--config.data.reader=release", f"--config.data.root={tmp_path}")
    args = ("--config=common", f"--workdir={tmp_path}", *flags, "--config.data.withheld=0.1")
    assert_one_clear_line(run("drin_jax.main", *args), "data.withheld", "release")


def test_without_pictures_everything_is_told_of_the_same_scores(
    store: Path, whole: Path, tmp_path: Path
) -> None:
    """Report, explanations and export of a run that is scored as if no mention had a picture."""
    workdir = shutil.copytree(whole, tmp_path / "work")
    args = arguments(store, workdir, *OURS, "--config.eval.pictures=False")
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
    assert "scored without the mentions' pictures" in result.stdout
    finished = open_run(workdir)
    scores = finished.scores("test")
    seen = open_run(whole).scores("test")
    assert np.abs(scores - seen).max() > 1e-3
    case = cases.ranked(finished, "test", [0])[0]
    assert case.candidates[0].score == pytest.approx(float(scores[0].max()), abs=1e-5)
    assert run("drin_jax.export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}",
               "--platforms=cpu").returncode == 0  # fmt: skip
    checked = run("drin_jax.export", f"--check={tmp_path / 'out'}")
    assert checked.returncode == 0, checked.stderr


def test_nil_needs_a_system_that_learns_it(store: Path, tmp_path: Path) -> None:
    result = run("drin_jax.main", *arguments(store, tmp_path, "--config.model.nil=True"))
    assert_one_clear_line(result, "model.nil is learnt by", "relational", "softmax")


def test_predictions_are_those_of_the_report(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    for split in ("valid", "test"):
        lines = (whole / f"predictions_{split}.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        result = report["splits"][split]
        assert len(found) == result["counts"]["mentions"]
        first = [one["gold"] == one["candidates"][0]["id"] for one in found if one["candidates"]]
        hits = result["subsets"]["all"]["end_to_end"][report["system"]]["mean"]["hits@1"]
        assert abs(sum(first) / len(found) - hits) < 0.02  # ties count half there
        for one in found:
            total = sum(c["probability"] for c in one["candidates"]) + one["nil_probability"]
            assert abs(total - 1) < 1e-4
