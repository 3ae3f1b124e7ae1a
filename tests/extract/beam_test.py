"""The Beam pipeline, on its direct runner: the same shards, hence the same store."""

from pathlib import Path
from typing import IO

import pytest

from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.extract import preparation
from drin_jax.extract.features import shard_file
from drin_jax.extract.items import SIDES
from tests.support import commands, picture_world
from tests.support.tolerance import assert_close

pytest.importorskip(
    "apache_beam", reason="extra beam; `make test` installs it unless BEAM= is empty"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    picture_world.write(root, 5, 6)
    return root


def test_shards_made_by_beam_give_the_store_of_one_machine(world: Path, tmp_path: Path) -> None:
    """By the two commands; run again, the pipeline finds every shard made."""
    config = picture_world.config(world, world / "encoders")
    flags = [f"--shards={tmp_path / 'shards'}", f"--workdir={tmp_path / 'work'}"]
    flags += picture_world.command_line(config)
    made = commands.run("drin_jax.extract.beam", *flags)
    assert made.returncode == 0, made.stderr
    assert "6 shards made" in made.stdout
    names = {path.name for path in (tmp_path / "shards").glob("*.npz")}
    kinds = [f"{side}_{kind}" for side in SIDES for kind in ("texts", "clip_texts", "pictures")]
    assert names == {shard_file(kind, 0) for kind in kinds}
    from drin_jax.extract.pipeline import write_jobs

    assert write_jobs(preparation.plan(config), str(tmp_path / "shards")) == []
    taken = preparation.prepare(config, tmp_path / "work", tmp_path / "shards")
    here = preparation.prepare(config, tmp_path / "here")
    for name in here.forms:
        assert_close(taken.array(name), here.array(name), f"{name} differs")
    assert taken.report["counts"] == here.report["counts"]
    assert Store.open(tmp_path / "work" / "store").made_from == here.made_from
    _refuses_foreign_shards(world, tmp_path)


def _refuses_foreign_shards(world: Path, tmp_path: Path) -> None:
    other = picture_world.config(world, world / "encoders", **{"text.entity": "{name}"})
    with pytest.raises(UserError, match="made from other data, settings or weights"):
        preparation.prepare(other, tmp_path / "other", tmp_path / "shards")
    shard = tmp_path / "shards" / shard_file("entity_texts", 0)
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(UserError, match="not a whole shard"):
        preparation.prepare(other, tmp_path / "other", tmp_path / "shards")


def test_a_shard_may_be_written_twice_at_once(tmp_path: Path) -> None:
    """As where a runner starts a late shard again, or two commands share a folder."""
    from drin_jax.extract.pipeline import write_file

    shard = str(tmp_path / "entity_texts-000000.npz")

    def late(file: IO[bytes]) -> None:
        file.write(b"a sh")
        write_file(shard, lambda other: other.write(b"a shard"))
        assert Path(shard).read_bytes() == b"a shard"
        file.write(b"ard")

    write_file(shard, late)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"a shard"]
