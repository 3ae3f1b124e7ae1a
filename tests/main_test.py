"""The training command: whole runs, signals, devices, and losses that are not finite; kills are
tests/torture's."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from drin_jax.training.device_tables import PLACES
from tests.support.commands import assert_one_clear_line, run, small_store, start, step_lines
from tests.support.tolerance import TRAINED, assert_close

EPOCHS = 6
STEPS = 15 * EPOCHS  # 230 mentions in batches of 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(
        tmp_path_factory.mktemp("store") / "store",
        mentions={"train": 230, "valid": 40, "test": 50},
        entities=60,
        r=6,
    )


def arguments(store: Path, workdir: Path, *more: str) -> list[str]:
    return [
        "--config=configs/common.py",
        f"--workdir={workdir}",
        f"--config.data.store={store}",
        "--config.model.width=16",
        "--config.model.layers=1",
        "--config.train.learning_rate=0.01",
        "--config.train.batch=16",
        f"--config.train.epochs={EPOCHS}",
        "--config.train.save_every=16",
        "--config.train.log_every=1",
        "--config.eval.batch=16",
        *more,
    ]


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    result = run("drin_jax.main", *arguments(store, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def result_of(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


def assert_same_run(workdir: Path, reference: Path) -> None:
    """The same losses, bit for bit, the same validation scores, and the same results."""
    assert step_lines(workdir) == step_lines(reference)
    ours, theirs = result_of(workdir), result_of(reference)
    assert ours["splits"] == theirs["splits"]
    assert ours["best_step"] == theirs["best_step"]


def test_a_run_writes_what_it_promises(whole: Path) -> None:
    lines = step_lines(whole)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, STEPS + 1))
    values = [line["loss"] for line in losses]
    assert np.mean(values[-15:]) < np.mean(values[:15]) - 0.01
    assert [line["epoch"] for line in lines if "epoch" in line] == list(range(1, EPOCHS + 1))
    report = result_of(whole)
    assert "gold in graph: only where retrieved" in report["protocol"]
    test = report["splits"]["test"]
    counts = test["counts"]
    assert counts["mentions"] == 50
    assert sum(counts.values()) == 2 * counts["mentions"]  # the four kinds add up to all
    for scope in ("answerable", "end_to_end"):
        rows = test["subsets"]["all"][scope]
        assert set(rows) == {
            "name matching",
            "first stage (union)",
            "raw text edge R_tt",
            "DRIN (upstream form, upstream loss)",
        }
        assert {len(by_ties) for by_ties in rows.values()} == {4}
    text = (whole / "report.md").read_text()
    assert "gold in graph: only where retrieved" in text
    assert "| all | end to end | name matching | 50 |" in text
    assert list((whole / "tensorboard").iterdir())


def test_a_finished_run_does_not_train_again(store: Path, whole: Path) -> None:
    before = step_lines(whole)
    result = run("drin_jax.main", *arguments(store, whole))
    assert result.returncode == 0, result.stderr
    assert result_of(whole)["steps_trained_now"] == 0
    assert step_lines(whole) == before


def test_a_finished_run_goes_on_with_more_epochs(store: Path, whole: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(whole, tmp_path / "more")
    args = arguments(store, workdir, f"--config.train.epochs={EPOCHS + 1}")
    assert run("drin_jax.main", *args).returncode == 0
    assert result_of(workdir)["steps_trained_now"] == 15
    steps = [line["step"] for line in step_lines(workdir) if "loss" in line]
    assert steps == list(range(1, STEPS + 16))


def steps_written(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stop(args: list[str], workdir: Path) -> None:
    """Start this training and send it SIGTERM in its second epoch; it was still running then."""
    process = start("drin_jax.main", *args)
    deadline = time.monotonic() + 300
    while steps_written(workdir) < 20 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143


def test_sigterm_saves_and_leaves_with_143(store: Path, whole: Path, tmp_path: Path) -> None:
    # No periodic save comes before the signal's.
    args = arguments(store, tmp_path, "--config.train.save_every=1000000")
    stop(args, tmp_path)
    saved = {int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()}
    lines = [line["step"] for line in step_lines(tmp_path)]
    assert max(saved) == max(lines)
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
    assert_same_run(tmp_path, whole)


def losses_of_two_epochs(
    store: Path, workdir: Path, impl: str, loss: str, tables: str, devices: int
) -> list[float]:
    result = run(
        "drin_jax.main",
        *arguments(
            store,
            workdir,
            f"--config.parallel.impl={impl}",
            f"--config.loss.form={loss}",
            f"--config.data.tables={tables}",
            "--config.train.epochs=2",
            "--config.train.save_every=1000",
        ),
        devices=devices,
    )
    assert result.returncode == 0, result.stderr
    assert PLACES["host" if impl == "pmap" else tables] in result.stderr
    return [line["loss"] for line in step_lines(workdir) if "loss" in line]


@pytest.mark.parametrize(
    ("impl", "loss", "tables"),
    [
        ("shard_map", "upstream", "device"),
        ("shard_map", "paper_batch", "sharded"),
        ("pmap", "upstream", "auto"),
    ],
)
def test_eight_devices_train_as_one(
    store: Path, whole: Path, tmp_path: Path, impl: str, loss: str, tables: str
) -> None:
    expected = [line["loss"] for line in step_lines(whole) if "loss" in line][:30]
    if loss != "upstream":
        one = tmp_path / "one"
        expected = losses_of_two_epochs(store, one, "shard_map", loss, "device", devices=1)
    losses = losses_of_two_epochs(store, tmp_path / "eight", impl, loss, tables, devices=8)
    assert len(losses) == 30
    assert_close(losses, expected, limit=TRAINED)


def test_a_loss_that_is_not_finite_stops_the_run(store: Path, whole: Path, tmp_path: Path) -> None:
    workdir = shutil.copytree(whole, tmp_path / "spoilt")
    args = arguments(store, workdir, f"--config.train.epochs={EPOCHS + 1}")
    (workdir / "config.json").unlink()
    result = run("drin_jax.main", *args, "--config.train.learning_rate=1e38")
    assert_one_clear_line(result, "is not finite", "its batch holds the mentions", "is kept")
    kept = {int(folder.name) for folder in (workdir / "checkpoints").iterdir()}
    assert max(kept) == STEPS
    # The kept checkpoint is a good one: with a sane rate the run goes on from it.
    (workdir / "config.json").unlink()
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
    assert result_of(workdir)["steps_trained_now"] == 15
    assert all(np.isfinite(line["loss"]) for line in step_lines(workdir) if "loss" in line)


def test_the_leaking_protocol_says_so_everywhere(store: Path, tmp_path: Path) -> None:
    args = ("--config.graph.gold_slot=upstream", "--config.train.epochs=1")
    result = run("drin_jax.main", *arguments(store, tmp_path, *args))
    assert result.returncode == 0, result.stderr
    assert "warning: graph.gold_slot is 'upstream'" in result.stderr
    assert "GOLD IN GRAPH" in result.stdout
    report = result_of(tmp_path)
    assert report["gold_in_graph"] is True
    assert "ALWAYS" in report["protocol"]
    assert "ALWAYS" in (tmp_path / "report.md").read_text()
