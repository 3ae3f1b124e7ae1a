"""Runs of a scene that are killed or whose writes fail, each held against an undisturbed twin."""

import dataclasses
import functools
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.arrays.growing import LOCK, MADE_FROM
from tests.support.commands import start
from tests.torture.scenes import BOUNDARIES, Scene

PATIENCE = 300.0  # seconds a command may take
COMPILER = shutil.which("cc")


@functools.cache
def library() -> str:
    """The library that makes operations fail (faults.c), compiled for this process."""
    folder = tempfile.TemporaryDirectory(prefix="drin_jax_faults_")
    library.folder = folder  # type: ignore[attr-defined]  lives as long as this process
    path = Path(folder.name) / "faults.so"
    source = Path(__file__).with_name("faults.c")
    assert COMPILER is not None
    command = [COMPILER, "-O1", "-shared", "-fPIC", "-o", str(path), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return str(path)


@dataclasses.dataclass(frozen=True)
class Fault:
    """`kind` is kill, term (SIGTERM), once or full at the operation `at`, counted from 1, of those
    on files whose path holds `match`; or kill after so many `seconds`."""

    kind: str
    at: int = 0
    seconds: float = 0.0
    match: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at " + (
            f"operation {self.at} {self.match}" if self.at else f"{self.seconds:.2f} s"
        )


class Tried:
    """Scenes tried with faults in folders under `folder`; a thread may have one of its own."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._twins: dict[str, tuple[Any, int, float]] = {}
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()

    def boundaries(self, scene: Scene, kinds: Sequence[str]) -> list[Fault]:
        """Faults of these kinds at every operation of the undisturbed run on its boundaries;
        threads write the others in no fixed order."""
        self.twin(scene)
        lines = (self._folder / f"{scene.name}-log").read_text().splitlines()
        counts = {name: sum(name in line for line in lines) for name in BOUNDARIES}
        return [
            Fault(kind, at, match=name)
            for name, count in counts.items()
            for at in range(1, count + 1)
            for kind in kinds
        ]

    def twin(self, scene: Scene) -> tuple[Any, int, float]:
        """Result, operations and seconds of the undisturbed run."""
        if scene.name not in self._twins:
            work, log = self._folder / f"{scene.name}-twin", self._folder / f"{scene.name}-log"
            scene.prepare(work)
            began = time.monotonic()
            code, err = _ended(scene, work, {"FAULT_UNDER": str(work), "FAULT_LOG": str(log)})
            seconds = time.monotonic() - began
            assert code == 0, err
            operations = len(log.read_text().splitlines()) if log.exists() else 0
            self._twins[scene.name] = scene.result(work), operations, seconds
        return self._twins[scene.name]

    def once(self, scene: Scene, fault: Fault) -> str:
        """Try it, start again in peace, and compare. Returns how it ended: killed, stopped, told or
        done.

        Raises:
            AssertionError: it ended otherwise, or what it left is not what the twin has.
        """
        self.twin(scene)
        with self._lock:
            work = self._folder / f"{scene.name}-{next(self._numbers)}"
        scene.prepare(work)
        what = f"{scene.name}, {fault}"
        more = {"FAULT_UNDER": str(work), "FAULT_AT": str(fault.at), "FAULT_KIND": fault.kind}
        if fault.match:
            more["FAULT_MATCH"] = fault.match
        code, err = _ended(scene, work, more, fault.seconds)
        last = (err.strip().splitlines() or [""])[-1]
        assert "Traceback" not in err, f"{what}: {err[-3000:]}"
        if code == 0:
            how = "done"
            self._compare(scene, work, f"{what}: exit 0 with another result", (MADE_FROM, LOCK))
        elif fault.kind == "kill":
            how = "killed"
            assert code == -9, f"{what}: exit {code}: {err[-3000:]}"
        elif fault.kind == "term":
            how = "stopped"
            assert code == 143, f"{what}: exit {code}: {err[-3000:]}"
            assert "SIGTERM" in err, f"{what}: {err[-3000:]}"
        else:
            how = "told"
            assert code == 1, f"{what}: exit {code}: {err[-3000:]}"
            assert last.startswith("error: "), f"{what}: {err[-3000:]}"
        code, err = _ended(scene, work, {})
        assert code == 0, f"{what}: the next start ends with {code}: {err[-3000:]}"
        self._compare(scene, work, f"{what}: the next start has another result")
        left = scene.left(self._folder / f"{scene.name}-twin")
        assert scene.left(work) == left, f"{what}: the next start leaves other files"
        shutil.rmtree(work)
        return how

    def _compare(self, scene: Scene, work: Path, what: str, unread: Collection[str] = ()) -> None:
        """Files of the names `unread` may be there too: nobody reads them, and the next start
        removes what this one could not."""
        twin, found = self._twins[scene.name][0], scene.result(work)
        if isinstance(found, dict):
            more = {name for name in found.keys() - twin if Path(name).name in unread}
            found = {name: held for name, held in found.items() if name not in more}
        assert found == twin, f"{what}: {', '.join(_other(found, twin))}; {work} is kept"


def _other(found: Any, twin: Any, name: str = "it") -> list[str]:
    """Names of the parts in which two results differ, with the bytes that do."""
    if isinstance(found, dict) and isinstance(twin, dict):
        keys = [key for key in found | twin if found.get(key) != twin.get(key)]
        return [one for key in keys for one in _other(found.get(key), twin.get(key), key)]
    if isinstance(found, tuple) and isinstance(twin, tuple):
        return [one for pair in zip(found, twin, strict=True) for one in _other(*pair, name)]
    if found == twin:
        return []
    if isinstance(found, bytes) and isinstance(twin, bytes) and len(found) == len(twin):
        return [f"{name} in {sum(a != b for a, b in zip(found, twin, strict=True))} bytes"]
    return [name]


def _ended(
    scene: Scene, work: Path, more: Mapping[str, str], seconds: float = 0.0
) -> tuple[int, str]:
    """Exit code and stderr of the scene's command; killed after so many seconds, unless 0."""
    faulty = {"LD_PRELOAD": library()} | more
    process = start(scene.module, *scene.arguments(work), more=faulty)
    if seconds:
        time.sleep(seconds)
        process.kill()
    _, err = process.communicate(timeout=PATIENCE)
    return process.wait(), err


def drawn(rng: random.Random, operations: int, seconds: float, kind: str = "") -> Fault:
    """A fault somewhere in a run of so many operations and seconds."""
    kind = kind or rng.choice(("kill", "once", "full"))
    if kind == "kill" and (not operations or rng.random() < 0.5):
        return Fault(kind, seconds=rng.uniform(0.01, seconds))
    return Fault(kind, at=rng.randint(1, max(operations, 1)))


def root() -> bool:
    """Whether file systems may be mounted."""
    return os.geteuid() == 0
