"""Kills writers of a store, a process of its own so that it may fork: run by `store_writer_test`
and `system_features_test`.

python -m tests.support.store_kills steps|times|adding FOLDER    prints what happened as JSON
"""

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import schema
from data_pipeline.arrays.growing import ShardTable
from data_pipeline.schema import UserError
from data_pipeline.store.extension import StoreExtension
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from tests.support.fixtures import TINY_GROUPS, tiny_arrays, tiny_store, write_tables

SETTINGS = {"who": "store_kills"}
SHARDED = "mention_image"
LATE = ("mention_has_text", "mention_text_edge", "mention_text")  # written beside the shards


def _tables(mentions: int) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    return tiny_arrays(mentions={"train": mentions - 8, "valid": 4, "test": 4}, separate_edges=True)


def _write(path: Path, rows: int, mentions: int, early_only: bool = False) -> None:
    """Write the whole store, going on where an earlier writer stopped; logs each shard written.
    With `early_only` it stops before the shards."""
    arrays, strings = _tables(mentions)
    writer = StoreWriter(path, SETTINGS)
    late = {SHARDED, *LATE, *(name for name in (*arrays, *strings) if writer.has(name))}
    early, early_strings = (
        {name: table for name, table in some.items() if name not in late}
        for some in (arrays, strings)
    )
    write_tables(writer, early, early_strings)
    if early_only:
        writer.close()
        return
    for scratch in (True, False):
        table = writer.shards(SHARDED, arrays[SHARDED].shape, "float32", rows, scratch)
        _fill(table, arrays[SHARDED], rows, path.with_suffix(".log"), f"{SHARDED} {scratch}")
    for name in LATE:
        writer.write(name, arrays[name])
    writer.finish("kills", TINY_GROUPS, {})


def _fill(table: ShardTable, array: np.ndarray, rows: int, log: Path, name: str) -> None:
    """Writes the shards that are missing; logs each once it is written."""
    with log.open("a") as file:
        for index in table.missing():
            table.write(index, array[index * rows : (index + 1) * rows])
            print(name, index, file=file, flush=True)
    table.finish()


def _repeats(log: Path) -> bool:
    lines = log.read_text().splitlines()
    return len(lines) > len(set(lines))


def _is_right(path: Path, mentions: int) -> bool:
    """The store is whole, right, and no finished shard was written twice."""
    store = Store.open(path, made_from=SETTINGS)
    store.verify()
    arrays, strings = _tables(mentions)
    return (
        all(np.array_equal(store.array(name), array) for name, array in arrays.items())
        and all(list(store.strings(name)) == table for name, table in strings.items())
        and not _repeats(path.with_suffix(".log"))
        and not path.with_name(path.name + ".partial").exists()
    )


def _is_refused(path: Path) -> bool:
    try:
        Store.open(path)
    except UserError:
        return True
    return False


def fork(run: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        run()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def die_at(step: int) -> None:
    """From here on the process kills itself before its `step`-th call that changes the disk."""
    left = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in ("replace", "rename", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    # Nothing here outlives the machine: a sync is a step, but need not reach the disk.
    os.fsync = counted(lambda handle: None)  # type: ignore[assignment]
    fcntl.flock = counted(fcntl.flock)  # type: ignore[assignment]


def steps(folder: Path) -> dict[str, int]:
    """A kill before each single step, then a run to the end: of the first steps of a fresh store,
    and of all steps from the shards on."""
    mentions, rows = 24, 5
    os.fsync = lambda handle: None  # type: ignore[assignment]
    early = folder / "early"
    _write(early, rows, mentions, early_only=True)
    counts = {"killed": 0, "killed when whole": 0, "wrong": 0}
    for start, most in ((None, 12), (early, 1000)):
        for step in range(1, most + 1):
            path = folder / "store"
            path.with_suffix(".log").unlink(missing_ok=True)
            if start:
                shutil.copytree(f"{start}.partial", f"{path}.partial")

            def run(path: Path = path, step: int = step) -> None:
                die_at(step)
                _write(path, rows, mentions)

            status = os.waitpid(fork(run), 0)[1]
            killed = os.WIFSIGNALED(status)
            if killed:
                counts["killed"] += 1
                if path.exists():
                    counts["killed when whole"] += 1
                else:
                    counts["wrong"] += not _is_refused(path)
                    _write(path, rows, mentions)
            else:
                counts["wrong"] += os.waitstatus_to_exitcode(status) != 0
            counts["wrong"] += not _is_right(path, mentions)
            shutil.rmtree(path)
            if not killed:
                break
    return counts


def times(folder: Path) -> dict[str, int]:
    """Six kills at random moments of runs that are continued until they are through."""
    mentions, rows = 1000, 5
    rng = np.random.default_rng(0)
    counts = {"killed": 0, "runs": 0, "wrong": 0}
    path = folder / "store"
    while counts["killed"] < 6 or path.with_name("store.partial").exists():
        if path.exists():
            shutil.rmtree(path)
            path.with_suffix(".log").unlink()
        counts["runs"] += 1
        child = fork(lambda: _write(path, rows, mentions))
        if counts["killed"] < 6:
            time.sleep(rng.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            counts["killed"] += 1
            if not path.exists():
                counts["wrong"] += not _is_refused(path)
                continue
        counts["wrong"] += not _is_right(path, mentions)
    return counts


def adding(folder: Path) -> dict[str, int]:
    """A kill before each single step of adding what systems need, then a run to the end."""
    os.fsync = lambda handle: None  # type: ignore[assignment]
    plain = tiny_store(folder / "plain")
    made, _ = tiny_arrays(tokens=True, regions=True, evidence=True)
    path, growing, log = folder / "store", folder / "store.adding", folder / "log"
    needs = ("tokens", "regions", "evidence")
    arrays = {name: made[name] for need in needs for name in schema.NEEDED_ARRAYS[need]}

    def add() -> None:
        store = Store.open(path)
        if not store.lacks(needs):
            return
        extension = StoreExtension(store, SETTINGS)
        for name, array in arrays.items():
            if name not in ("mention_tokens", "mention_regions"):
                extension.write(name, array)
                continue
            rows = len(array) // 2 + 1
            table = extension.shards(name, array.shape, "float32", rows)
            _fill(table, array, rows, log, name)
        extension.add({})

    counts = {"killed": 0, "killed when whole": 0, "wrong": 0}
    killed = True
    while killed:
        shutil.copytree(plain.path, path)
        log.write_text("")

        def run(step: int = counts["killed"] + 1) -> None:
            die_at(step)
            add()

        status = os.waitpid(fork(run), 0)[1]
        killed = os.WIFSIGNALED(status)
        counts["killed"] += killed
        counts["wrong"] += not killed and os.waitstatus_to_exitcode(status) != 0
        store = Store.open(path)
        store.verify()
        whole = not store.lacks(needs)
        counts["killed when whole"] += killed and whole
        counts["wrong"] += not whole and store.specs != plain.specs
        add()
        store = Store.open(path)
        counts["wrong"] += any(not np.array_equal(store.array(n), a) for n, a in arrays.items())
        counts["wrong"] += _repeats(log)
        # A kill after the last replacement may leave the settings behind, which are small.
        counts["wrong"] += not whole and growing.exists()
        shutil.rmtree(growing, ignore_errors=True)
        shutil.rmtree(path)
    return counts


if __name__ == "__main__":
    modes = {"steps": steps, "times": times, "adding": adding}
    print(json.dumps(modes[sys.argv[1]](Path(sys.argv[2]))))
