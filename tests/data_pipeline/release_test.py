"""The import of the authors' release: what becomes of each array, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import schema
from data_pipeline.loader import GraphTables
from data_pipeline.release import convert, inventory, vertices
from data_pipeline.schema import SPLITS, GraphSpec
from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from drin_jax.parity import torch_weights
from tests.support import release_fixtures as fixtures
from tests.support.fixtures import refusal
from tests.support.paths import ROOT
from tests.support.release_fixtures import Arrays, golden_files, make_release, meaning, save_release
from tests.support.tolerance import assert_close

DATASETS = ("wikidiverse", "wikimel")
VERTICES = {"mt": "mention_text", "mv": "mention_image", "et": "entity_text", "ev": "entity_image"}


def imported(root: Path, path: Path) -> Store:
    convert.write(root, StoreWriter(path, {"release": inventory.fingerprint(root)}), name="test")
    store = Store.open(path)
    store.verify()
    return store


def graphs(store: Store, split: str, gold_slot: bool) -> Arrays:
    return GraphTables(store, split, GraphSpec(gold_slot=gold_slot)).batch(
        np.arange(store.splits[split])
    )


# ---- what is written


@pytest.mark.parametrize("dims", [fixtures.SMALL, fixtures.PUBLIC], ids=["small", "public"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_known_answers(tmp_path, dataset, dims):
    arrays = make_release(dataset, dims)
    store = imported(save_release(tmp_path / dataset, arrays).parent, tmp_path / "store")
    for split in SPLITS:
        batch, known = graphs(store, split, gold_slot=True), meaning(arrays, split)
        for short, name in VERTICES.items():
            assert_close(batch[name], known[short])
            has = known[short].any(-1)
            np.testing.assert_array_equal(batch[name.replace("_", "_has_")], has)
        assert_close(batch["edges"], known["edges"])
        answer = arrays[f"answer_{split}"]
        found = answer < fixtures.SLOTS[dataset] - 1
        np.testing.assert_array_equal(batch["gold"], np.where(found, answer, -1))
        # The appended slot and the candidate at `answer` are the same entity.
        golds = np.asarray(store.array(f"{split}_gold_entity"))
        candidates = store.array(f"{split}_candidates")
        np.testing.assert_array_equal(candidates[found, answer[found]], golds[found])
        assert (golds >= 0).all()
    assert store.sizes["r"] == fixtures.SLOTS[dataset] - 1
    assert store.sizes["clip_width"] == 0


@pytest.mark.parametrize("dataset", DATASETS)
def test_entities_are_kept_once_and_named(tmp_path, dataset):
    arrays = make_release(dataset)
    store = imported(save_release(tmp_path / "release", arrays), tmp_path / "store")
    ids, names = store.strings("entity_id"), store.strings("entity_name")
    assert len(set(ids)) == len(ids)
    raw = "entity-attr-raw" if dataset == "wikidiverse" else "entity-name-raw"
    used = {name for split in SPLITS for name in arrays[f"{raw}_{split}"].tolist()}
    if dataset == "wikidiverse":
        assert sorted(names) == sorted(used)
    else:
        assert list(ids) == arrays["qid2idx"].tolist()
    for split in SPLITS:
        slots = arrays[f"{raw}_{split}"].reshape(fixtures.SIZES[split], -1)
        candidates = store.array(f"{split}_candidates")
        assert [[names[row] for row in rows] for rows in candidates] == slots[:, :-1].tolist()


def test_features_tell_entities_of_one_text_apart(tmp_path):
    arrays = make_release("wikidiverse")
    before = len(set(np.concatenate([arrays[f"entity-attr-raw_{s}"] for s in SPLITS])))
    arrays["entity-attr-feature_test"][7] += 1e-3
    arrays["answer_test"][0] = 7
    root = save_release(tmp_path / "release", arrays)
    store = imported(root, tmp_path / "store")
    counts = store.report["counts"]
    assert counts["entities"] == before + 1
    assert counts["entities with the text and picture of another"] == 1
    assert counts["gold slots that differ from their candidate"] == 1


def test_groups_and_counts(tmp_path):
    store = imported(
        save_release(tmp_path / "release", make_release("wikidiverse")), tmp_path / "store"
    )
    bits = {name: 1 << i for i, name in enumerate(store.groups)}
    groups = {split: np.asarray(store.array(f"{split}_groups")) for split in SPLITS}
    shared = dict.fromkeys(fixtures.SHARED_TEXT, False)
    for split, values in groups.items():
        clean = [shared.get((split, i), True) for i in range(len(values))]
        assert ((values & bits[schema.GROUP_CLEAN]) > 0).tolist() == clean
        lost = [(split, i) == fixtures.NO_SPAN for i in range(len(values))]
        assert ((values & bits[schema.GROUP_NO_SPAN]) > 0).tolist() == lost
    known = set(store.array("train_gold_entity").tolist())
    unseen = [gold not in known for gold in store.array("test_gold_entity").tolist()]
    assert ((groups["test"] & bits[schema.GROUP_UNSEEN]) > 0).tolist() == unseen
    counts = store.report["counts"]
    told = {"train": 5, "valid": 3, "test": 4, "mentions": 12, "span_not_found": 1}
    told |= {"clean_test": 3, "without mention_has_image": 1, "without entity_has_text": 1}
    assert counts | told == counts
    assert counts["gold slots that differ from their candidate"] == 0


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_reference_arrays_become_the_same_graphs(tmp_path, dataset):
    """Through the files and the store, the golden inputs are what the parity test feeds."""
    with np.load(ROOT / f"tests/golden/drin_{dataset}_dynamic.npz") as file:
        inputs = {name[3:]: file[name] for name in file.files if name.startswith("in/")}
    b, slots = inputs["similarity_miet"].shape
    # Random inputs: make the appended slot the gold again.
    answer = inputs["answer"]
    for name in inputs:
        if name.startswith(("entity", "similarity")) and inputs[name].shape[:2] == (b, slots):
            rows = np.where(answer < slots - 1, answer, slots - 1)
            inputs[name][:, -1] = inputs[name][np.arange(b), rows]
    store = imported(
        save_release(tmp_path / "release", golden_files(inputs, dataset)), tmp_path / "s"
    )
    ours = graphs(store, "test", gold_slot=True)
    theirs = torch_weights.from_release(inputs, dataset)
    for name in ("mention_text", "mention_image", "entity_text", "entity_image", "edges", "gold"):
        assert_close(ours[name], getattr(theirs, name))


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_gold_slot_reaches_the_gold_edges_only(tmp_path, dataset):
    arrays = make_release(dataset)
    changed = {name: array.copy() for name, array in arrays.items()}
    slots = fixtures.SLOTS[dataset]
    for split in SPLITS:
        for way in ("miet", "eimt"):
            changed[f"similarity-{way}_{split}"][:, -1] *= -0.5
        if dataset == "wikidiverse":
            for name in ("attr-feature", "image-feature", "object-feature", "object-score"):
                changed[f"entity-{name}_{split}"][slots - 1 :: slots] += 1
    stores = [
        imported(save_release(tmp_path / str(i) / "release", some), tmp_path / str(i) / "store")
        for i, some in enumerate((arrays, changed))
    ]
    for split in SPLITS:
        one, two = (graphs(store, split, gold_slot=False) for store in stores)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
        first, second = (store.array(f"{split}_gold_edges") for store in stores)
        assert (first != second).any(1).all()


# ---- what is refused


def damaged(tmp_path: Path, dataset: str, **changes: np.ndarray | None) -> Path:
    """A release with arrays replaced ("_" for "-"), or left out where None."""
    arrays = make_release(dataset)
    for key, array in changes.items():
        name = next(name for name in arrays if name.replace("-", "_") == key)
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    return save_release(tmp_path / "release", arrays)


def refused(root: Path, tmp_path: Path) -> str:
    writer = StoreWriter(tmp_path / "store", {})
    told = refusal(lambda: convert.write(root, writer, name="test"))
    writer.close()
    assert told.startswith(convert.check(root)[0])
    return told


def test_every_missing_array_is_named(tmp_path):
    gone = ("start_pos_train", "entity_image_path_valid", "answer_test")
    told = refused(damaged(tmp_path, "wikidiverse", **dict.fromkeys(gone)), tmp_path)
    assert told.startswith("release: 3 of the 54 arrays are missing: ")
    for name in ("start-pos_train.npy", "entity-image-path_valid.npy", "answer_test.npy"):
        assert name in told


def test_missing_qids_are_named(tmp_path):
    told = refused(damaged(tmp_path, "wikimel", qid2idx=None), tmp_path)
    assert "1 of the 45 files are missing: qid2idx.json" in told


@pytest.mark.parametrize(
    ("dataset", "name", "array", "told"),
    [
        ("wikidiverse", "mention_image_feature_test", np.ones((4, 3, 5), "f4"), "[4, 4, 5] (N, P"),
        ("wikidiverse", "entity_attr_feature_valid", np.ones((32, 6), "f4"), "[33, 6] (N*S, t)"),
        ("wikidiverse", "answer_train", np.ones(4, int), "is [4], but must be [5] (N)"),
        ("wikidiverse", "answer_train", np.ones(5, "f4"), "holds float32, but must hold integers"),
        ("wikidiverse", "similarity_miet_test", np.ones((4, 11), int), "must hold floats"),
        ("wikidiverse", "mention_text_raw_test", np.array([None] * 4), "Python objects"),
        ("wikidiverse", "answer_test", np.full(4, 11), "row 0 holds 11; allowed are 0 to 10"),
        ("wikimel", "entity_attr_mask", np.ones((140, 6)), "[140, 7] (E, A)"),
        ("wikimel", "entity_name_raw_test", np.array(["Q1"] * 404), "row 0 names 'Q1'"),
        ("wikidiverse", "mention_image_feature_test", np.full((4, 4, 5), np.inf, "f4"), "finite"),
        ("wikidiverse", "similarity_eimt_test", np.full((4, 11), np.nan, "f4"), "row 0 is not"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, dataset, name, array, told):
    root = damaged(tmp_path, dataset, **{name: array})
    if array.dtype.kind == "f" and not np.isfinite(array).all():  # found while reading
        writer = StoreWriter(tmp_path / "store", {})
        assert told in refusal(lambda: convert.write(root, writer, name="test"))
        return
    line = refused(root, tmp_path)
    assert told in line
    assert name.split("_")[0] in line


@pytest.mark.parametrize("left", [0, 40, -8])
def test_cut_files_are_named(tmp_path, left):
    root = damaged(tmp_path, "wikidiverse")
    path = root / "mention-text-feature_train.npy"
    path.write_bytes(path.read_bytes()[:left])
    told = refused(root, tmp_path)
    assert str(path) in told
    if left == -8:
        assert "float32 [5, 9, 6] takes 1208" in told


def test_all_problems_are_told_at_once(tmp_path):
    root = damaged(tmp_path, "wikidiverse", answer_test=None, start_pos_train=np.ones(4, int))
    (root / "end-pos_valid.npy").write_text("<html>")
    problems = convert.check(root)
    assert len(problems) == 3
    assert "(and 2 more problems)" in refused(root, tmp_path)
    assert all("\n" not in problem for problem in problems)


def test_the_folder_is_found_or_asked_for(tmp_path):
    assert "no array of the authors' release" in convert.check(tmp_path)[0]
    assert "is not a folder" in convert.check(tmp_path / "nowhere")[0]
    for dataset in DATASETS:
        save_release(tmp_path / dataset, make_release(dataset))
        assert convert.check(tmp_path / dataset) == []
    assert "both wikidiverse and wikimel" in convert.check(tmp_path)[0]
    one, two = (inventory.fingerprint(tmp_path / dataset) for dataset in DATASETS)
    assert one != two


# ---- kills

KILLED = """
import os, signal, sys
from pathlib import Path
from data_pipeline.release import convert, vertices
from data_pipeline.arrays.growing import ShardTable
from data_pipeline.store.writer import StoreWriter
vertices.ROWS_PER_SHARD = 2
write, left = ShardTable.write, int(sys.argv[3])
def counted(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*args)
ShardTable.write = counted
convert.write(Path(sys.argv[1]), StoreWriter(sys.argv[2], {}), name="test")
"""


def test_a_killed_import_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(vertices, "ROWS_PER_SHARD", 2)
    root = save_release(tmp_path / "release", make_release("wikidiverse"))
    whole = imported(root, tmp_path / "whole")
    shards = -(-whole.sizes["entities"] // 2) * 3 + 3  # all of the entities', one of the mentions'
    command = [sys.executable, "-c", KILLED, str(root), str(tmp_path / "store"), str(shards)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -9
    read, rows = [], inventory.Release.rows
    monkeypatch.setattr(inventory.Release, "rows", lambda *a: read.append(a[1:]) or rows(*a))
    writer = StoreWriter(tmp_path / "store", {})
    assert (writer.folder / "kb" / "kb.json").exists()
    assert not (tmp_path / "store").exists()
    told = refusal(lambda: StoreWriter(tmp_path / "store", {}))
    assert "in use by process" in told
    convert.write(root, writer, name="test")
    assert min(row[1] for row in read if row[0] == "mention-image-feature_train") == 2
    one, two = (json.loads((tmp_path / s / "store.json").read_text()) for s in ("whole", "store"))
    assert one["arrays"] == two["arrays"]  # checksums of everything
