"""Run the project's commands as a user does, in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs import common
from data_pipeline.schema import UserError
from data_pipeline.store.writer import StoreWriter
from drin_jax.extract import stored
from tests.support.fixtures import TINY_GROUPS, tiny_arrays
from tests.support.paths import ROOT


def start(module: str, *args: str, devices: int = 1) -> subprocess.Popen:
    """`python -m module args`, with so many simulated CPU devices."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "COLUMNS": "160",
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *args],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(module: str, *args: str, devices: int = 1) -> subprocess.CompletedProcess:
    """The same, finished."""
    process = start(module, *args, devices=devices)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def assert_one_clear_line(result: subprocess.CompletedProcess, *words: str, code: int = 1) -> None:
    """The command failed with `code` and one line that holds all these words, and no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), result.stderr
    for word in words:
        assert word in last, last


def small_store(path: Path, **options: Any) -> Path:
    """A random store that configs/common.py takes for its own."""
    arrays, strings = tiny_arrays(**options)
    writer = StoreWriter(path, stored.settings(common.get_config()) | {stored.SOURCES: {}})
    for name, table in strings.items():
        writer.write_strings(name, table)
    for name, array in arrays.items():
        writer.write(name, array)
    writer.finish("small", TINY_GROUPS, {"counts": {}})
    return path


def step_lines(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def user_error(call: Callable[[], Any]) -> str:
    """The one line with which `call` refuses what its user asked for."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)
