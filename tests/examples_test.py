"""Every example runs from an empty folder, offline, and says something worth saying."""

import ast
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drin_jax import Linker
from tests.support import linkers
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SERVED = importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn")


def environment(home: Path) -> dict[str, str]:
    """Of a user who has nothing yet; only compiled programs are kept from test to test."""
    return {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def example(name: str, folder: Path, *args: str) -> subprocess.CompletedProcess:
    """A finished example, started in this folder."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *args]
    result = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result


def on_the_model(name: str, folder: Path, *args: str) -> str:
    return example(name, folder, f"--model={linkers.trained()}", *args).stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_and_says_how_it_is_run(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(source)) or "")
    assert f"`python examples/{name}.py" in (EXAMPLES / "README.md").read_text()
    assert len(source.splitlines()) <= 110


def test_own_base(tmp_path: Path) -> None:
    out = on_the_model("own_base", tmp_path)
    first = re.search(r"20 entities; the right one of them is first: (\d) of 8", out)
    assert first is not None, out
    assert int(first[1]) >= 7
    *_, zanzibar, _ = out.split("\n\n")
    assert re.search(r"(9\d|100)\.\d%  none of them", zanzibar)


def test_products(tmp_path: Path) -> None:
    out = on_the_model("products", tmp_path)
    linked = re.findall(r"^(P\d+) +\d+%", out, re.MULTILINE)
    meant = ["P100", "P101", "P103", "P104", "P106", "P107", "P110", "P111"]
    assert sum(a == b for a, b in zip(linked, meant, strict=True)) >= 7, out
    assert "P109, of the 3 foods" in out
    assert out.endswith("with a Regent teapot in the catalogue: P112\n")


def test_posts(tmp_path: Path) -> None:
    result = example("posts", tmp_path, "posts", f"--model={linkers.trained()}")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["post"] for line in lines] == sorted(
        path.name for path in (tmp_path / "posts").glob("*.txt")
    )
    for line in lines:
        assert line["mention"] == line["post"].partition("-")[0]
        assert line["candidates"][0]["name"] == line["mention"]
    assert "12/12 mentions" in result.stderr
    kelfields = {line["candidates"][0]["id"] for line in lines if line["mention"] == "Kelfield"}
    assert len(kelfields) > 1  # one sentence, several pictures


def test_nil_threshold(tmp_path: Path) -> None:
    head, *rows = on_the_model("nil_threshold", tmp_path).splitlines()
    assert head.split() == ["threshold", "NIL", "precision", "recall", "right"]
    numbers = [
        [float(cell.rstrip("%").replace("-", "nan")) for cell in r.split()[1:]] for r in rows
    ]
    said, precision, recall, right = zip(*numbers[:-1], strict=True)
    assert list(said) == sorted(said, reverse=True)
    assert list(recall) == sorted(recall, reverse=True)
    assert recall[0] == 100
    assert max(precision) >= 80
    assert max(right) >= 75
    assert rows[-1].split()[0] == "is_nil"


def test_fine_tune(tmp_path: Path) -> None:
    out = on_the_model("fine_tune", tmp_path, "tuning", "--mentions=20")
    runs = {name: tmp_path / "tuning" / name for name in ("scratch", "tuned")}
    config = json.loads((runs["tuned"] / "config.json").read_text())
    assert config["train.init"] == str(tmp_path / "tuning" / "model")
    for folder in runs.values():
        assert f"--workdir={folder}" in out
    scores = dict(
        re.findall(r"^(the model as it was|scratch|tuned) +([\d.]+)%$", out, re.MULTILINE)
    )
    assert len(scores) == 3, out
    assert float(scores["tuned"]) > 40  # a third of the candidates share the name


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The address of a service over the small model, that may be written to."""
    (tmp_path / "token").write_text("sesame\n")
    command = [sys.executable, "-m", "drin_jax.serve", f"--model={tmp_path / 'model'}", "--port=0"]
    command += [f"--token-file={tmp_path / 'token'}", "--batch=1"]
    Linker.from_pretrained(linkers.trained()).save_pretrained(tmp_path / "model")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        ready = next((line for line in process.stdout if "http://" in line), "")
        assert ready, (tmp_path / "log").read_text()
        yield ready.split()[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.skipif(not SERVED, reason="the service is for extra serve")
def test_client(service: str, tmp_path: Path) -> None:
    flags = (f"--url={service}", f"--token-file={tmp_path / 'token'}")
    out = example("client", tmp_path, *flags).stdout
    begin, *_, added, linked, end = out.splitlines()
    assert begin.endswith("entities in sample world")
    assert "Kelfield may be Q" in out
    assert out.count("with the picture of Q") == 2
    assert len(re.findall(r"'Kelfield' is Q\d+ \(\d+%\), or nobody", out)) >= 2
    assert added == "added"
    assert "'Ottoline Quex' is client-1" in linked
    assert end == f"removed; {begin.split()[0]} entities"
