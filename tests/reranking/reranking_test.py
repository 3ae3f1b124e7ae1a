"""A run with a reranker: trained once, stopped and gone on with, the same answers everywhere."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipeline import output
from data_pipeline.schema import UserError
from drin_jax import Linker, run
from drin_jax.evaluation.reordering import Reordering, open_reordering, reordered
from drin_jax.explain.cases import ranked
from drin_jax.extract.corpus import mentions_of
from drin_jax.reranking import fitting
from drin_jax.training.loop import Terminated
from drin_jax.training.session import Session
from drin_jax.workdir import FinishedRun, open_run
from tests.support import commands, linkers
from tests.support.tolerance import assert_close

# Trained for long enough to count something on any machine.
FEW = {"epochs": 12, "batch": 8, "undecided": 0.97, "best": 3, "learning_rate": 1e-3}
CLOSE = 2e-3  # of probabilities: evidence is kept in float16


def begun(workdir: Path, **fields: Any) -> ConfigDict:
    """A finished run without a reranker in `workdir`, and its config with one."""
    shutil.copytree(linkers.trained(), workdir)
    config = open_run(workdir).config
    config.data.store = str(workdir / "store")
    config.reranker.update({"text": config.encoders.text, **FEW, **fields})
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with one."""
    folder = tmp_path_factory.mktemp("reranked") / "run"
    with output.silent():
        run.execute(begun(folder), folder)
    return folder


@pytest.fixture(scope="module")
def finished(workdir: Path) -> FinishedRun:
    return open_run(workdir)


def told(found: Reordering) -> tuple[bytes, ...]:
    return (str(found.weight).encode(), *(said.tobytes() for said in found.said.values()))


def test_what_is_read_again_keeps_what_it_has_together() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 6)).astype(np.float32)
    said = np.full((4, 6), np.nan, np.float32)
    said[0, :3], said[2, [1, 4]] = rng.normal(size=3), (9, -9)
    found = reordered(scores, said, 2.0)
    kept = np.isnan(said)
    assert (found[kept] == scores[kept]).all()
    for row in (0, 2):
        some = ~kept[row]
        own = np.logaddexp.reduce(found[row, some].astype(np.float64))
        assert own == pytest.approx(np.logaddexp.reduce(scores[row, some].astype(np.float64)), 1e-5)
        leads = found[row, some] - scores[row, some] - 2 * said[row, some]
        assert np.ptp(leads) < 1e-4
    assert found[2, 1] > found[2, 4]
    assert (reordered(scores, said, 0.0) == scores).all()


def test_the_report_has_both_and_valid_decides_how_much_it_counts(
    workdir: Path, finished: FinishedRun
) -> None:
    report = json.loads((workdir / "report.json").read_text())
    assert report["system"].endswith("+ reranker")
    systems = report["splits"]["test"]["subsets"]["all"]["end_to_end"]
    assert [*systems][-2:] == ["the same without the reranker", report["system"]]
    about = json.loads((workdir / "reranker" / "reranker.json").read_text())
    assert about["weight"] > 0
    assert min(about[split] for split in ("train", "valid", "test")) > 5
    assert finished.reordering
    for split in ("valid", "test"):
        read = ~np.isnan(finished.reordering.said[split])
        assert ((read.sum(1) == 0) | ((read.sum(1) > 1) & (read.sum(1) <= 3))).all()
        assert about[split] == int(read.any(1).sum())
    alone = open_run(linkers.trained()).scores("test")
    moved = (finished.scores("test") != alone).any(1)
    read = ~np.isnan(finished.reordering.said["test"])
    assert moved.any()
    assert not moved[~read.any(1)].any()


def test_it_is_trained_once(workdir: Path, finished: FinishedRun) -> None:
    network = workdir / "reranker" / "model.safetensors"
    before = network.stat().st_mtime_ns, (workdir / "predictions_test.jsonl").read_bytes()
    with output.silent():
        run.execute(finished.config.copy_and_resolve_references(), workdir)
    assert (network.stat().st_mtime_ns, (workdir / "predictions_test.jsonl").read_bytes()) == before
    assert not (workdir / "reranker" / "checkpoints").exists()


def test_stopped_and_killed_it_goes_on_bit_for_bit(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = begun(tmp_path / "run")
    batch, left, seldom = fitting._Training._batch, [3, 2], fitting.SAVE_SECONDS

    def interrupted(training: Any, step: int) -> Any:
        left[-1] -= 1
        if not left[-1]:
            if len(left) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                left.pop()
                raise KeyboardInterrupt  # as a kill leaves it
        return batch(training, step)

    monkeypatch.setattr(fitting, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fitting._Training, "_batch", interrupted)
    with output.silent():
        with pytest.raises(KeyboardInterrupt):
            run.execute(config, tmp_path / "run")
        with pytest.raises(UserError, match="the reranker is not trained; start its run's command"):
            open_run(tmp_path / "run")
        with pytest.raises(Terminated) as stopped:
            run.execute(config, tmp_path / "run")
        assert stopped.value.code == 128 + signal.SIGTERM
        monkeypatch.setattr(fitting._Training, "_batch", batch)
        monkeypatch.setattr(fitting, "SAVE_SECONDS", seldom)
        config.reranker.batch = 4
        with pytest.raises(UserError, match=r"reranker\.partial: was trained for something else"):
            run.execute(config, tmp_path / "run")
        config.reranker.batch = FEW["batch"]
        run.execute(config, tmp_path / "run")
    found = open_reordering(tmp_path / "run" / "reranker", finished.store, finished.setup.spec.r)
    assert finished.reordering
    assert told(found) == told(finished.reordering)


def test_the_linker_answers_as_evaluation_did(
    workdir: Path, finished: FinishedRun, tmp_path: Path
) -> None:
    lines = (workdir / "predictions_test.jsonl").read_text().splitlines()
    mentions = {m.id: m for m in mentions_of(finished.config, finished.store)}
    first = Linker.from_pretrained(workdir)
    first.save_pretrained(tmp_path / "saved")
    assert "cross-encoder reads the best 3" in (tmp_path / "saved" / "README.md").read_text()
    saved = Linker.from_pretrained(tmp_path / "saved")
    asked = []
    for line in map(json.loads, lines):
        mention = mentions[line["id"]]
        span = (mention.start, mention.end)
        asked.append({"text": mention.text, "span": span, "image": mention.image})
    for line, found in zip(map(json.loads, lines), first.link_many(asked, k=8), strict=True):
        near = {one["id"]: one["probability"] for one in line["candidates"]}
        assert {one.id for one in found.candidates} == near.keys()
        for one, other in zip(found.candidates, near.values(), strict=True):
            assert one.probability == pytest.approx(near[one.id], abs=CLOSE)
            assert one.probability == pytest.approx(other, abs=CLOSE)  # the same order
        assert found.is_nil == line["is_nil"]
    blind = [one | {"image": None} for one in asked]  # boxes in pictures are the data set's
    for one, other in zip(first.link_many(blind), saved.link_many(blind), strict=True):
        assert one == other
    again = Linker.from_pretrained(linkers.trained()).link(**asked[0])
    assert again.model != first.link(**asked[0]).model == saved.link(**asked[0]).model


def test_nothing_is_compiled_after_the_warm_up(workdir: Path, finished: FinishedRun) -> None:
    linker = Linker.from_pretrained(workdir)
    linker.warm_up(9)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    mentions = mentions_of(finished.config, finished.store)
    asked = [{"text": m.text, "mention": m.name, "image": m.image} for m in mentions[-9:]]
    for size in (1, 4, 9):
        assert len([*linker.link_many(asked[:size])]) == size
    assert compiled == []


def test_explanations_tell_what_it_said(finished: FinishedRun) -> None:
    assert finished.reordering
    said = finished.reordering.said["test"]
    row = int(np.flatnonzero(~np.isnan(said).all(1))[0])
    case = ranked(finished, "test", [row])[0]
    read = [one for one in case.candidates if "reranker" in one.reasons]
    assert len(read) == int((~np.isnan(said[row])).sum())
    assert all("read together, score" in one.reasons["reranker"] for one in read)
    scores = finished.scores("test")[row]
    assert_close(sorted(one.score for one in case.candidates), sorted(scores))
    alone = open_run(linkers.trained())
    before = {one.id: one.score for one in ranked(alone, "test", [row])[0].candidates}
    for one in case.candidates:
        gain = one.score - before[one.id]
        assert one.contributions["reranker"] == pytest.approx(gain, abs=1e-4)


def test_a_reranker_of_something_else_is_refused(workdir: Path, finished: FinishedRun) -> None:
    config = finished.config.copy_and_resolve_references()
    config.reranker.epochs = 3
    with pytest.raises(UserError, match=r"trained for something else \(reranker.epochs 12 -> 3\)"):
        run.execute(config, workdir)
    config.reranker.epochs = FEW["epochs"]
    with output.silent():
        run.execute(config, workdir)  # and what it was made for is as before


@pytest.fixture
def damaged(workdir: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    return copy / "reranker"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("said_test.npy", b"\x93NUMPY", "said_test.npy: unreadable"),
        ("said_valid.npy", None, "said_valid.npy: unreadable"),
        ("reranker.json", b"{}", "'weight' or 'of' is missing or odd"),
        ("reranker.json", None, "the reranker is not trained"),
    ],
)
def test_damage_is_told(damaged: Path, file: str, content: bytes | None, message: str) -> None:
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_run(damaged.parent)


def test_what_cannot_have_one_says_so(tmp_path: Path) -> None:
    config = begun(tmp_path / "run", undecided=0.0)
    with output.silent(), pytest.raises(UserError, match=r"raise reranker\.undecided"):
        run.execute(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"reranker\.text is read by drin_jax.main alone"):
        Session(config, open_run(linkers.trained()).store)
    config.reranker.update({"undecided": 0.9, "text": str(tmp_path / "nowhere")})
    with output.silent(), pytest.raises(UserError, match="does not exist"):
        run.execute(config, tmp_path / "run")
    config.reranker.update({"text": config.encoders.text, "learning_rate": 1e37, "undecided": 0.97})
    with output.silent(), pytest.raises(UserError, match=r"lower reranker\.learning_rate"):
        run.execute(config, tmp_path / "run")


def test_an_export_says_that_its_scorer_does_without(workdir: Path, tmp_path: Path) -> None:
    result = commands.run("drin_jax.export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "the scorer does without the reranker" in result.stdout + result.stderr
