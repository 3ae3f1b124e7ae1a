"""Tokens, regions and characters: added to a store, looked up in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.arrays.array_file import read_header
from data_pipeline.arrays.growing import ShardTable
from data_pipeline.loader import EvalLoader, GraphTables
from data_pipeline.schema import GraphSpec, UserError
from data_pipeline.store.extension import StoreExtension
from data_pipeline.store.reader import Store
from drin_jax.extract import preparation, stages
from drin_jax.extract.encoding import Encoders
from tests.data_pipeline.store_writer_test import kills
from tests.extract.prepare_release_test import config as release_config
from tests.support import picture_world, release_fixtures
from tests.support.fixtures import refusal, tiny_arrays, tiny_store
from tests.support.tolerance import assert_close

BOTH = ("tokens", "regions")
OF_PAPERS = (*BOTH, "characters")  # what the paper's systems need


class Stopped(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A config over a small data set, and the workdir of its plain store."""
    folder = tmp_path_factory.mktemp("needs")
    picture_world.write(folder / "world")
    config = picture_world.config(folder / "world", folder / "encoders")
    preparation.prepare(config, folder / "work")
    return config, folder / "work"


def test_batches_hold_what_is_asked_for(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", tokens=True, regions=True, evidence=True)
    rows = np.array([0, 4, -1, 2])
    tables = GraphTables(store, "train", GraphSpec(gold_slot=True, needs=schema.NEEDS))
    batch = tables.batch(rows)
    s = batch["mention_tokens"].shape[1]
    expected = schema.batch_shapes(
        4, tables.spec.slots, 8, 6, schema.NEEDS, s, 4, len("Entität 23".encode())
    )
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == expected
    offsets, tokens = store.array("mention_token_offsets"), store.array("mention_tokens")
    assert s == np.diff(offsets).max()
    for i, row in enumerate(rows):
        if row < 0:
            assert not batch["mention_token_mask"][i].any()
            assert not batch["mention_tokens"][i].any()
            assert not batch["mention_characters"][i].any()
            assert not batch["mention_span"][i].any()
            continue
        mention = store.array("train_mention")[row]
        own = tokens[offsets[mention] : offsets[mention + 1]]
        np.testing.assert_array_equal(batch["mention_tokens"][i, : len(own)], own)
        assert not batch["mention_tokens"][i, len(own) :].any()
        assert batch["mention_token_mask"][i].sum() == len(own)
        picture = store.array("mention_region_row")[mention]
        regions = store.array("mention_regions")[picture] if picture >= 0 else np.zeros((4, 6))
        np.testing.assert_array_equal(batch["mention_regions"][i], regions)
        name = store.strings("mention_surface")[mention].encode()
        assert batch["mention_characters"][i].tolist()[: len(name) + 1] == [b + 1 for b in name] + [
            0
        ]
        for j, entity in enumerate(store.array("train_candidates")[row]):
            first = store.strings("entity_name")[entity].encode()[0] + 1 if entity >= 0 else 0
            assert batch["entity_characters"][i, j, 0] == first
    (_, loaded), *_ = EvalLoader(store, "train", 4, spec=GraphSpec(needs=("tokens",)))
    assert "mention_tokens" in loaded
    assert "mention_regions" not in loaded


def test_long_names_are_cut_and_empty_ones_are_zero(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store")
    store.kb.__dict__["names"] = ["x" * 99, "", "né"]
    found = store.characters("entity_name")
    assert found.shape == (3, schema.CHARACTERS)  # 99 bytes are cut
    assert (found[0] == ord("x") + 1).all()
    assert not found[1].any()
    assert found[2].tolist()[:4] == [ord("n") + 1, 0xC3 + 1, 0xA9 + 1, 0]


def test_a_store_without_them_says_what_adds_them(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "store", tokens=True, evidence=True)
    GraphTables(store, "train", GraphSpec(needs=("tokens", "characters")))
    line = refusal(lambda: GraphTables(store, "train", GraphSpec(needs=schema.NEEDS)))
    assert "drin_jax.extract" in line
    assert "encoders.regions=True" in line
    assert "encoders.tokens" not in line
    assert "flavours" in refusal(
        lambda: GraphTables(store, "train", GraphSpec(needs=("flavours",)))
    )


def test_added_to_a_store_after_a_kill(
    world: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was encoded before a kill is not encoded again, the old store stays whole until the end,
    and the token vectors are those that the vertices were pooled from."""
    config, workdir = world
    before = Store.open(workdir / "store")
    monkeypatch.setattr(stages, "TOKENS_PER_SHARD", 128)
    monkeypatch.setattr(stages, "REGIONS_PER_SHARD", 8)
    config = config.copy_and_resolve_references()
    config.encoders.tokens = config.encoders.regions = True
    real, budget = ShardTable.write, [5]

    def write(self: ShardTable, index: int, rows: np.ndarray) -> None:
        if not budget[0]:
            raise Stopped
        budget[0] -= 1
        real(self, index, rows)

    monkeypatch.setattr(ShardTable, "write", write)
    stops = 0
    for _ in range(20):
        try:
            store = preparation.prepare(config, workdir)
            break
        except Stopped:
            assert Store.open(workdir / "store").specs == before.specs
            stops += 1
            budget[0] = 3
    assert stops > 1
    assert not store.lacks(BOTH)
    assert {name: store.specs[name] for name in before.specs} == before.specs
    assert sorted(path.name for path in workdir.iterdir()) == [
        *("masked_mention_pictures.tsv", "store")
    ]
    store.verify()
    tokens, offsets = store.array("mention_tokens"), store.array("mention_token_offsets")
    for i, (first, last) in enumerate(store.array("mention_span")):
        own = tokens[offsets[i] : offsets[i + 1]]
        pooled = store.array("mention_text")[i]  # the mean over the mention's tokens
        assert_close(own[first:last].mean(0), pooled)
        assert_close(own[0], store.array("mention_text_edge")[i])
    has, row = store.array("mention_has_image"), store.array("mention_region_row")
    np.testing.assert_array_equal(row >= 0, has)
    means = store.array("mention_regions").mean(1)
    assert_close(means[row[has]], store.array("mention_image")[has])
    # A store that holds more than a config asks for is that config's store all the same.
    config.encoders.tokens = config.encoders.regions = False
    assert preparation.prepare(config, workdir).specs == store.specs

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoders, "encode", never)
    assert preparation.prepare(config, workdir, needs=OF_PAPERS).specs == store.specs


def test_a_kill_at_any_step_of_adding_leaves_a_whole_store(tmp_path: Path) -> None:
    counts = kills("adding", tmp_path)
    assert counts["killed"] > 40
    assert counts["killed when whole"] > 0
    assert counts["wrong"] == 0


def test_what_another_has_added_meanwhile_stays(tmp_path: Path) -> None:
    """Whoever opened the store before that is told, whatever a kill left of the other."""
    plain = tiny_store(tmp_path / "store")
    made, _ = tiny_arrays(tokens=True)
    names = schema.NEEDED_ARRAYS["tokens"]

    def add(store: Store) -> None:
        extension = StoreExtension(store, {"by": "tests"})
        for name in names:
            extension.write(name, made[name])
        extension.add({})

    add(Store.open(plain.path))
    left = tmp_path / "store.adding"
    left.mkdir()
    (left / "made_from.json").write_text("{}")
    assert "another process has just added to it" in refusal(lambda: add(plain))
    assert (left / "made_from.json").exists()  # it may be the beginning of a third one's
    store = Store.open(plain.path)
    StoreExtension(store, {"by": "another"}).close()
    store.verify()
    np.testing.assert_array_equal(store.array("mention_tokens"), made["mention_tokens"])


def test_what_cannot_be_added_is_one_line(tmp_path: Path) -> None:
    picture_world.write(tmp_path / "world", entities=4, mentions=8)
    config = picture_world.config(tmp_path / "world", tmp_path / "encoders")
    config.encoders.image = config.encoders.clip = config.encoders.objects = ""
    preparation.prepare(config, tmp_path / "work")
    for field, told in (("data.root", "gone"), ("encoders.text", "made with other settings|other")):
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict({field: told.split("|")[-1]})
        with pytest.raises((UserError, ValueError), match=told) as caught:
            preparation.prepare(other, tmp_path / "work", needs=("tokens",))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", ["wikidiverse", "wikimel"])
def test_a_release_has_tokens_and_regions_too(dataset: str, tmp_path: Path) -> None:
    arrays = release_fixtures.make_release(dataset)
    root = release_fixtures.save_release(tmp_path / dataset, arrays)
    config = release_config(root)
    store = preparation.prepare(config, tmp_path / "work", needs=OF_PAPERS)
    store.verify()
    tokens, offsets = store.array("mention_tokens"), store.array("mention_token_offsets")
    at = 0
    for split in schema.SPLITS:
        own = arrays[f"mention-text-feature_{split}"]
        regions = arrays[f"mention-image-feature_{split}"]
        for i in range(len(own)):
            count = int(offsets[at + 1] - offsets[at])
            assert count == max(1, int(arrays[f"mention-text-mask_{split}"][i].sum()))
            rows = tokens[offsets[at] : offsets[at + 1]]
            np.testing.assert_array_equal(rows, own[i, :count])
            picture = store.array("mention_region_row")[at]
            assert (picture >= 0) == store.array("mention_has_image")[at]
            if picture >= 0:
                np.testing.assert_array_equal(store.array("mention_regions")[picture], regions[i])
            at += 1
    assert read_header(store.path / "mention_span.npy").shape == (at, 2)


def test_a_release_that_is_gone_is_one_line(tmp_path: Path) -> None:
    root = release_fixtures.save_release(
        tmp_path / "wikimel", release_fixtures.make_release("wikimel")
    )
    config = release_config(root)
    preparation.prepare(config, tmp_path / "work")
    root.rename(tmp_path / "gone")
    assert preparation.prepare(config, tmp_path / "work").lacks(BOTH) == list(BOTH)
    with pytest.raises(UserError) as caught:
        preparation.prepare(config, tmp_path / "work", needs=BOTH)
    line = str(caught.value)
    assert "\n" not in line
    assert "encoders.tokens=True --config.encoders.regions=True" in line
    assert "wikimel is not a folder" in line
