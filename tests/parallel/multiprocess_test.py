"""Several processes over loopback: one run with one result, stopped and lost processes, and the
checkpoint of any number of processes and devices as the start of any other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from drin_jax.parallel import multihost
from drin_jax.parallel.data_parallel import DataParallel
from tests.support import restored_parameters
from tests.support.commands import (
    ROOT,
    Command,
    assert_one_clear_line,
    run,
    small_store,
    start,
    step_lines,
    user_error,
)
from tests.support.processes import finish, free_port
from tests.support.tolerance import TRAINED, assert_close

STEPS = 45  # 230 mentions in batches of 16, three times


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"train": 230, "valid": 40, "test": 50}
    return small_store(tmp_path_factory.mktemp("store") / "store", mentions=sizes, r=6)


def arguments(store: Path, workdir: Path, epochs: int = 3) -> list[str]:
    fields = {
        "data.store": store,
        "model.name": "bert",  # the least to compile
        "train.batch": 16,
        "train.epochs": epochs,
        "train.save_every": 8,
        "train.log_every": 1,
        "eval.batch": 16,
    }
    own = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=configs/common.py", f"--workdir={workdir}", *own]


def digest_here(workdir: Path) -> str:
    """Of the newest checkpoint's state, on the one device of this process."""
    told = restored_parameters.restored(workdir)
    (digest,) = told["copies"]
    assert [digest] != told["unlike"]
    return str(digest)


def digests(workdir: Path, devices: int = 1, processes: int = 1) -> list[str]:
    """The same on every device of every one of so many processes."""
    module, place = "tests.support.restored_parameters", f"127.0.0.1:{free_port()}"
    places = [(place, str(processes), str(i)) for i in range(processes)] if processes > 1 else [()]
    started = [start(module, str(workdir), *own, devices=devices) for own in places]
    found = []
    for result in finish(started):
        assert result.returncode == 0, result.stderr
        told = json.loads(result.stdout.splitlines()[-1])  # after what gloo has to say
        assert not {*told["copies"]} & {*told["unlike"]}
        found += told["copies"]
    assert len(found) == devices * processes
    return found


def start_two(*args: str) -> list[Command]:
    place = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"
    return [start("drin_jax.main", *args, *place, f"--process={i}") for i in (0, 1)]


def once_written(workdir: Path, step: int, act: Callable[[], None]) -> None:
    """`act` as soon as the run has written this step."""
    path = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while f'"step": {step},' not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    act()


def losses(workdir: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in step_lines(workdir) if "loss" in line}


def assert_same_results(workdir: Path, reference: Path) -> None:
    """Equal to rounding; every count and name exactly."""
    ours, theirs = (json.loads((w / "report.json").read_text()) for w in (workdir, reference))
    flat = [dict(leaves(result["splits"])) for result in (ours, theirs)]
    assert flat[0].keys() == flat[1].keys()
    for name, value in flat[0].items():
        if "bins" in name:  # of two that are as sure, rounding says which is in which
            continue
        assert value == pytest.approx(flat[1][name], abs=1e-5), name


def leaves(tree, prefix: str = ""):
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from leaves(value, f"{prefix}.{name}")
    else:
        yield prefix, tree


def test_a_run_may_change_its_processes_and_lose_them(store: Path, tmp_path: Path) -> None:
    whole, changing = tmp_path / "whole", tmp_path / "changing"
    environment = os.environ | {"PYTHON": sys.executable, "SIMULATE": "1", "JAX_PLATFORMS": "cpu"}
    script = [str(ROOT / "launch" / "multiprocess.sh"), "2", *arguments(store, whole)]
    result = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "[0] bert, " in result.stderr
    assert "2 cpu device(s)" in result.stderr
    assert all(line[:4] in ("[0] ", "[1] ") for line in result.stdout.splitlines())
    assert len(losses(whole)) == STEPS

    first = run("drin_jax.main", *arguments(store, changing, epochs=1))
    assert first.returncode == 0, first.stderr
    alone = losses(changing)

    # The same bits wherever they are restored.
    digest = digest_here(changing)
    assert {*digests(changing, devices=8)} == {digest}

    # One process to two; then the second is killed and takes the first with it.
    args = arguments(store, changing)
    processes = start_two(*args)
    once_written(changing, 27, processes[1].kill)
    survivor, killed = finish(processes)
    assert killed.returncode == -signal.SIGKILL
    assert_one_clear_line(survivor, multihost.LOST)
    before = losses(changing)

    # The same command goes on, bit for bit; one of both is asked to stop, and both do.
    processes = start_two(*args)
    once_written(changing, 34, lambda: processes[0].send_signal(signal.SIGTERM))
    stopped = finish(processes)
    assert [process.returncode for process in stopped] == [143, 143], stopped
    again = losses(changing)
    assert len(before) >= 27
    assert alone.items() <= before.items() <= again.items()
    saved = {int(folder.name) for folder in (changing / "checkpoints").iterdir()}
    assert max(saved) == max(again) < STEPS

    # Two processes to one, and to one of eight devices.
    assert {*digests(changing, processes=2)} == {digest_here(changing)} != {digest}
    last = run("drin_jax.main", *args, devices=8)
    assert last.returncode == 0, last.stderr
    at_last = losses(changing)
    assert again.items() <= at_last.items()
    reference = losses(whole)
    steps = list(range(1, STEPS + 1))
    assert list(at_last) == list(reference) == steps
    assert_close([at_last[i] for i in steps], [reference[i] for i in steps], limit=TRAINED)
    assert_same_results(changing, whole)


def test_pmap_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert "use parallel.impl='shard_map'" in user_error(lambda: DataParallel("pmap"))


def test_processes_that_do_not_fit_together_end_in_one_line(store: Path, tmp_path: Path) -> None:
    place = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"
    processes = [
        start("drin_jax.main", *arguments(store, tmp_path / str(i)), *place, f"--process={i}")
        for i in (0, 1)
    ]
    for result in finish(processes):
        assert_one_clear_line(result, "process 1 does not see what process 0", "--workdir")
