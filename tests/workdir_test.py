"""A workdir: one process at a time, tied to its data, whatever its name; nothing in it is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drin_jax.workdir import open_run
from tests.support import given_world
from tests.support.commands import ROOT, assert_one_clear_line, run, start, step_lines, user_error


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return given_world.write(tmp_path_factory.mktemp("root"), *given_world.rows())


@pytest.fixture(scope="module")
def trained(
    root: Path, encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished workdir, and what the command said. Its name is as odd as names may be."""
    workdir = tmp_path_factory.mktemp("work") / "*?{x}% é #&'"
    result = run("drin_jax.main", *given_world.flags(root, workdir, encoders))
    assert result.returncode == 0, result.stderr
    return workdir, result


def report_of(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


def test_candidates_are_as_many_as_the_data_gives(trained) -> None:
    workdir, result = trained
    told = f"retrieval.r is 100, but no mention has more than {given_world.GIVEN} candidates"
    assert told in result.stderr
    assert f"candidates: given, r = {given_world.GIVEN};" in report_of(workdir)["protocol"]


def test_rows_are_called_what_they_are(trained) -> None:
    """Names are compared where the data gives the candidates too; their order is a row of its own
    (here it tells nothing, while a name is that of two entities)."""
    workdir, result = trained
    rows = report_of(workdir)["splits"]["test"]["subsets"]["all"]["end_to_end"]
    order = "order of the given candidates"
    assert list(rows)[:3] == ["name matching", order, "raw text edge R_tt"]
    assert rows["name matching"]["mean"]["mrr"] > 0.6
    assert rows[order]["mean"]["mrr"] < 0.6
    assert result.stdout.startswith("On test, DRIN (upstream form, upstream loss) (MRR ")
    assert "the best of what needs no training." in result.stdout.splitlines()[0]


def test_a_workdir_of_any_name_is_read_again(trained) -> None:
    workdir, result = trained
    assert str(workdir) in result.stdout
    looked = run("drin_jax.explain", f"--workdir={workdir}", "--list=3")
    assert looked.returncode == 0, looked.stderr


@pytest.mark.parametrize("name", ["[a]", "a\\b"])
def test_a_name_that_orbax_could_not_read_is_refused_at_once(
    name: str, root: Path, encoders: Path, tmp_path: Path
) -> None:
    result = run("drin_jax.main", *given_world.flags(root, tmp_path / name, encoders))
    assert_one_clear_line(result, "--workdir", name, "use another name")
    assert not list(tmp_path.iterdir())


def test_a_first_mistake_leaves_the_workdir_to_the_config_without_it(
    root: Path, encoders: Path, tmp_path: Path
) -> None:
    flags = given_world.flags(root, tmp_path / "work", encoders)
    wrong = run("drin_jax.main", *flags, f"--config.data.root={tmp_path / 'typo'}")
    assert_one_clear_line(wrong, "typo")
    result = run("drin_jax.main", *flags, "--config.train.epochs=1")
    assert result.returncode == 0, result.stderr
    again = run("drin_jax.main", *flags, "--config.train.epochs=1", "--config.graph.r=2")
    assert_one_clear_line(again, "made by another config", "graph.r")
    kept = (tmp_path / "work/config.json").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/entities.jsonl").write_text('{"id": "e", "name": "E"}\n')
    other = run("drin_jax.main", *flags, f"--config.data.root={tmp_path / 'other'}")
    assert other.returncode == 1
    assert (tmp_path / "work/config.json").read_bytes() == kept


def test_other_data_is_refused_until_its_checkpoints_are_deleted(
    trained, root: Path, encoders: Path, tmp_path: Path
) -> None:
    """Mentions of train and test swapped: what was trained on them must not be scored on them."""
    workdir = shutil.copytree(trained[0], tmp_path / "work")
    entities, mentions = given_world.rows()
    for i in range(10):
        train, test = mentions[i], mentions[-1 - i]
        train["split"], test["split"] = "test", "train"
    given_world.write(tmp_path / "root", entities, mentions)
    args = given_world.flags(tmp_path / "root", workdir, encoders)
    result = run("drin_jax.main", *args)
    assert_one_clear_line(result, "made with other settings", "mentions.jsonl", "delete")
    shutil.rmtree(workdir / "store")
    result = run("drin_jax.main", *args)
    told = (f"{workdir / 'checkpoints'} holds a run over another feature store", "delete")
    assert_one_clear_line(result, *told)
    for module, *more in (
        ("drin_jax.explain", "--list=3"),
        ("drin_jax.export", f"--out={tmp_path / 'export'}"),
    ):
        refused = run(module, f"--workdir={workdir}", *more)  # its config is that of the run
        assert_one_clear_line(refused, "made with other settings", "mentions.jsonl")
    shutil.rmtree(workdir / "checkpoints")
    result = run("drin_jax.main", *args)
    assert result.returncode == 0, result.stderr
    assert report_of(workdir)["steps_trained_now"] == 10
    kept = [line["step"] for line in step_lines(workdir) if "loss" in line]
    assert kept == list(range(1, 11))


def test_finished_rows_of_other_data_are_refused(
    root: Path, encoders: Path, tmp_path: Path
) -> None:
    def suite(root: Path, *rows: str):
        args = given_world.flags(root, tmp_path / "suite", encoders, "--seeds=1", *rows)
        return run("drin_jax.experiments", "table3", *args)

    first = suite(root, "--rows=full")
    assert first.returncode == 0, first.stderr
    entities, mentions = given_world.rows(seed=1)
    given_world.write(tmp_path / "other", entities, mentions)
    shutil.rmtree(tmp_path / "suite" / "store")
    second = suite(tmp_path / "other", "--rows=static")
    assert second.returncode == 1
    told = "holds a run over another feature store than"
    assert told in (tmp_path / "suite" / "runs" / "static" / "failure.txt").read_text()
    assert not list((tmp_path / "suite" / "runs" / "static").glob("seed*"))


def stop(process) -> None:
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_works_there(
    trained, root: Path, encoders: Path, tmp_path: Path
) -> None:
    """Whatever writes there; what only reads goes on, and harms nothing."""
    workdir = shutil.copytree(trained[0], tmp_path / "work")
    args = given_world.flags(root, workdir, encoders, "--config.train.epochs=10")
    first = start("drin_jax.main", *args)
    deadline = time.monotonic() + 300
    while len(step_lines(workdir)) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        for module, more in (("drin_jax.main", args), ("drin_jax.audit", args)):
            held = (f"in use by process {first.pid} on ", "(drin_jax.main)")
            assert_one_clear_line(run(module, *more), *held)
        looked = run("drin_jax.explain", f"--workdir={workdir}", "--list=3")
        assert looked.returncode == 0, looked.stderr
        first.send_signal(signal.SIGCONT)
        while first.poll() is None:  # and again while it saves
            looked = run("drin_jax.explain", f"--workdir={workdir}", "--list=3")
            assert looked.returncode == 0, looked.stderr
    finally:
        first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=600)
    assert first.returncode == 0, err
    steps = [line["step"] for line in step_lines(workdir) if "loss" in line]
    assert steps == list(range(1, 51))


def test_places_that_are_no_folders_are_refused_at_once(
    root: Path, encoders: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    for flag in ("--workdir=gs://a/b", "--config.data.store=s3://a/b", "--config.data.root=gs://a"):
        args = given_world.flags(root, tmp_path / "work", encoders, flag)
        assert_one_clear_line(run("drin_jax.main", *args), "only folders of this machine's file")
    args = given_world.flags(root, tmp_path / "work", encoders, "--workdir=")
    assert_one_clear_line(run("drin_jax.main", *args), "--workdir is missing")
    assert sorted(tmp_path.iterdir()) == before


def test_output_that_cannot_be_written_costs_no_report(trained, root: Path, encoders: Path) -> None:
    """A full, a closed and a one-character stdout, and one that nobody reads any more."""
    workdir, _ = trained
    args = given_world.flags(root, workdir, encoders)
    command = [sys.executable, "-m", "drin_jax.main", *args]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def ended(form: str, **more: str) -> tuple[int, str]:
        (workdir / "report.md").unlink()
        shell = ["bash", "-c", f'"$@" {form}', "bash", *command]
        done = subprocess.run(
            shell, cwd=ROOT, env=environment | more, capture_output=True, text=True, timeout=600
        )
        assert (workdir / "report.md").exists(), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    code, told = ended(">/dev/full")
    assert code == 1
    assert told.endswith("error: output: No space left on device\n")
    assert ended(">&- 2>&-")[0] == 0
    assert ended("| head -n 1 >/dev/null; exit ${PIPESTATUS[0]}")[0] == 141
    code, told = ended("", PYTHONIOENCODING="ascii")
    assert code == 0
    assert "\\xe9" in told  # of the workdir's name


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 100_000, "unreadable (nested too deeply)"),
        ('{"data": 1}', "'data' is odd"),
        ('{"seed": {"a.b": 1}}', "'seed' is odd"),
        ('{"data.verify": "yes"}', "made by another version of this program"),
        (None, "cannot be read (Is a directory)"),
    ],
)
def test_a_config_that_no_run_wrote_is_refused(
    content: str | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text("{}")
    if content is None:
        (tmp_path / "config.json").mkdir()
    else:
        (tmp_path / "config.json").write_text(content)
    assert told in user_error(lambda: open_run(tmp_path))
