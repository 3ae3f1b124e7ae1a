"""Run the project's commands as a user does, in processes of their own."""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs import common
from data_pipeline.schema import UserError
from data_pipeline.store.writer import StoreWriter
from drin_jax.extract import stored
from tests.support import compilation
from tests.support.fixtures import TINY_GROUPS, tiny_arrays, write_tables
from tests.support.paths import ROOT


class Command:
    """A running command, as `subprocess.Popen` shows one."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]):
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        answers, answer = os.pipe()
        request = {"module": module, "arguments": arguments, "environment": dict(environment)}
        files = [*(file.fileno() for file in self._files), answer]
        server = _server(environment.get("LD_PRELOAD", ""))
        socket.send_fds(server, [json.dumps(request).encode()], files)
        os.close(answer)
        self._answers = os.fdopen(answers)
        self.pid = int(self._answers.readline())

    def wait(self, timeout: float | None = None) -> int:
        """Its end; subprocess.TimeoutExpired where it does not end so soon."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its end, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and stderr, once it has ended."""
        self.wait(timeout)
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server(preload: str) -> socket.socket:
    """Requests of this process go in here; the server ends with it. `preload`: a library."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.command_server", str(theirs.fileno())],
        cwd=ROOT,
        env=_environment(1) | {"LD_PRELOAD": preload},
        pass_fds=[theirs.fileno()],
        process_group=0,
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _environment(devices: int, hasty: bool = True) -> dict[str, str]:
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": compilation.flags(devices, hasty),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "COLUMNS": "160",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # a command sets it before it imports JAX
    }


def start(
    module: str,
    *args: str,
    devices: int = 1,
    hasty: bool = True,
    more: Mapping[str, str] | None = None,
) -> Command:
    """`python -m module args`, with so many simulated CPU devices. `hasty` as in `compilation`;
    `more` of the environment."""
    return Command(module, args, _environment(devices, hasty) | (more or {}))


def run(
    module: str, *args: str, devices: int = 1, hasty: bool = True
) -> subprocess.CompletedProcess:
    """The same, finished."""
    process = start(module, *args, devices=devices, hasty=hasty)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(args, process.wait(), out, err)


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
    write_tables(writer, arrays, strings)
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
