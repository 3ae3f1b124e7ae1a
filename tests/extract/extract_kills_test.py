"""An extraction that is killed goes on where it was; two never write one store."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.extract import preparation
from tests.support import commands, picture_world
from tests.support.full_disk import full_beyond
from tests.support.tolerance import assert_close


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    picture_world.write(root, 9, 8)
    return root


def log(workdir: Path) -> list[str]:
    path = workdir / "log"
    return path.read_text().splitlines() if path.exists() else []


def start(world: Path, workdir: Path, *renamed: str) -> commands.Command:
    return commands.start("tests.support.extract_kills", str(world), str(workdir), *renamed)


def wait_for(process: commands.Command, workdir: Path, lines: int) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and len(log(workdir)) < lines and time.monotonic() < deadline:
        time.sleep(0.002)


def test_killed_extractions_go_on_without_repeating_a_finished_shard(
    world: Path, tmp_path: Path
) -> None:
    """kill -9 on the way, once when the knowledge base's segment is whole and kb.json does not name
    it yet; the store is that of one run in peace. While a run holds the folder (stopped, so that it
    stays where it is) another one is refused."""
    peace = preparation.prepare(picture_world.config(world, world / "encoders"), tmp_path / "peace")
    workdir = tmp_path / "work"
    workdir.mkdir()
    for goal, renamed in ((4, ()), (1000, ("000001",)), (40, ())):
        process = start(world, workdir, *renamed)
        wait_for(process, workdir, goal)
        if goal == 4:
            process.send_signal(signal.SIGSTOP)
            second = start(world, workdir)
            _, err = second.communicate(timeout=200)
            assert second.returncode == 1
            assert "in use by process" in err
        if not renamed:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL
        assert not (workdir / "store").exists()
        assert (workdir / "store.partial/kb/000001").exists() == (goal > 4)
    process = start(world, workdir)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    *finished, last = log(workdir)
    assert last == "done"
    assert len(finished) == len(set(finished)), "a finished shard was written again"
    tables = {line.split()[0].split("/")[1] for line in finished}
    assert tables >= {"entity_text", "scratch_image", "scratch_clip_text", "mention_image"}
    store = Store.open(workdir / "store")
    store.verify()
    for name in peace.forms:
        if name.endswith(("text", "edge", "edges", "image", "objects", "score", "evidence")):
            # Other batch mates.
            assert_close(store.array(name), peace.array(name))
        else:
            np.testing.assert_array_equal(store.array(name), peace.array(name))
    assert not (workdir / "store.partial").exists()


def test_a_full_disk_leaves_nothing_half_written(world: Path, tmp_path: Path) -> None:
    """Files may not grow past a few blocks: the write fails as it does on a full disk. One line,
    no store; with room again the run goes on to a whole one."""
    config = picture_world.config(world, world / "encoders")
    with full_beyond(1500), pytest.raises(UserError, match="cannot be written"):
        preparation.prepare(config, tmp_path)
    assert not (tmp_path / "store").exists()
    preparation.prepare(config, tmp_path).verify()
