import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.store.reader import Store
from data_pipeline.store.writer import StoreWriter
from tests.support.fixtures import TINY_GROUPS, refusal, tiny_arrays, tiny_store, write_tables
from tests.support.paths import ROOT

# ---- kills


def test_a_kill_at_any_step_leaves_a_run_that_can_go_on(tmp_path: Path) -> None:
    counts = kills("steps", tmp_path)
    assert counts["killed"] > 40
    assert counts["killed when whole"] > 0
    assert counts["wrong"] == 0


def test_kills_at_random_times_leave_a_run_that_can_go_on(tmp_path: Path) -> None:
    counts = kills("times", tmp_path)
    assert counts["killed"] == 6
    assert counts["wrong"] == 0


def kills(mode: str, folder: Path) -> dict[str, int]:
    """What `tests.support.store_kills` counted."""
    command = [sys.executable, "-m", "tests.support.store_kills", mode, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- one writer, one setting


def test_finished_arrays_and_shards_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "store"
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    first = StoreWriter(path, {"encoder": "a"})
    first.write("mention_text", rows)
    first.shards("mention_image", (6, 2), "float32", 4).write(1, rows[4:])
    first.close()
    second = StoreWriter(path, {"encoder": "a"})
    assert second.has("mention_text")
    assert not second.has("mention_image")
    assert not second.has("mention_id")
    np.testing.assert_array_equal(second.array("mention_text_edge"), rows)
    table = second.shards("mention_image", (6, 2), "float32", 4)
    assert (table.count, table.missing()) == (2, [0])
    assert "1 of 2 shards are missing" in refusal(table.finish)
    table.write(1, rows[:2])  # finished already: kept as it is
    table.write(0, rows[:4])
    table.finish()
    np.testing.assert_array_equal(second.array("mention_image"), rows)
    assert second.shards("mention_image", (6, 2), "float32", 4).missing() == []
    assert second.shards("mention_image", (7, 2), "float32", 4).missing() == [0, 1]


def test_shards_of_another_layout_start_anew(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {})
    rows = np.ones((6, 2), np.float32)
    writer.shards("mention_image", (6, 2), "float32", 4).write(0, rows[:4])
    assert writer.shards("mention_image", (6, 2), "float32", 3).missing() == [0, 1]
    assert writer.shards("mention_image", (6, 2), "float32", 4).missing() == [0, 1]
    assert "must be float32 [2, 2]" in refusal(
        lambda: writer.shards("mention_image", (6, 2), "float32", 4).write(1, rows[:4])
    )


def test_a_leftover_of_other_settings_is_discarded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store"
    for settings, kept in (({"n": (1, 2)}, False), ({"n": [1, 2]}, True), ({"n": [1]}, False)):
        writer = StoreWriter(path, settings)
        assert writer.has("mention_text") == kept
        writer.write("mention_text", np.ones((2, 2), np.float32))
        writer.close()
    notes = capsys.readouterr().err.splitlines()
    assert notes == [f"{path}.partial: left over from other settings, discarded"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {})
    writer.write("mention_text", np.zeros((5, 2), np.float32))
    before = writer.array("mention_text")
    writer.write("mention_text", np.ones((5, 2), np.float32))
    assert not before.any()  # its reader has the old file
    assert writer.array("mention_text").all()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = StoreWriter(tmp_path / "store", {})
    assert "in use by process" in refusal(lambda: StoreWriter(tmp_path / "store", {}))
    first.close()
    StoreWriter(tmp_path / "store", {}).close()


def test_a_writer_touches_no_store_and_no_foreign_folder(tmp_path: Path) -> None:
    tiny_store(tmp_path / "store")
    assert "exists already" in refusal(lambda: StoreWriter(tmp_path / "store", {}))
    Store.open(tmp_path / "store").verify()
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "thesis.tex").write_text("x")
    assert "thesis.tex" in refusal(lambda: StoreWriter(tmp_path / "mine", {}))
    assert (tmp_path / "mine.partial" / "thesis.tex").exists()
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in refusal(lambda: StoreWriter(tmp_path / "file" / "store", {}))


# ---- what finish refuses


def _finish(tmp_path: Path, groups: list[str] | None = None, **changes: Any) -> None:
    """Finish a store with some arrays changed; None leaves one out."""
    arrays, strings = tiny_arrays()
    writer = StoreWriter(tmp_path / "store", {})
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    write_tables(writer, kept, strings)
    writer.finish("tiny", TINY_GROUPS if groups is None else groups, {})


def _changed(name: str, index: Any, value: Any) -> dict[str, np.ndarray]:
    array = tiny_arrays()[0][name].copy()
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"test_edges": None}, "lacks the array test_edges"),
        ({"mention_text": np.zeros((26, 9), np.float32)}, "mention_text [26, 9] has t = 9"),
        ({"entity_has_text": np.zeros(23, bool)}, "must be bool [E] of 24"),
        ({"valid_edges": np.zeros((6, 3, 4), np.float32)}, "has 4 = 3, but the schema has 4"),
        ({"train_gold": np.zeros(12, np.int32)}, "has N_train = 12"),
        ({"mention_id_offsets": np.zeros(4, np.int64)}, "mention_id_offsets [4] has M = 3"),
        ({"mention_id_offsets": np.zeros(27, np.int64)}, "mention_id_offsets must rise"),
        (_changed("entity_image", (3, 2), np.nan), "entity_image.npy: row 3 holds"),
        (_changed("train_edges", (7, 1, 0), np.inf), "train_edges.npy: row 7 holds"),
        (_changed("test_candidates", (5, 1), 24), "test_candidates row 5"),
        (_changed("test_candidates", (5, 1), -2), "test_candidates row 5"),
        (_changed("valid_mention", 2, 26), "valid_mention row 2 holds 26; allowed are 0 to 25"),
        (_changed("train_gold", 1, 4), "train_gold row 1 holds 4; allowed are -1 to 3"),
        (_changed("train_gold_entity", 1, -3), "train_gold_entity row 1"),
        (_changed("train_groups", 1, 8), "train_groups row 1 holds 8"),
    ],
)
def test_finish_refuses(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refusal(lambda: _finish(tmp_path, **changes))
    assert not (tmp_path / "store").exists()


def test_finish_refuses_a_gold_slot_that_holds_another_entity(tmp_path: Path) -> None:
    arrays = tiny_arrays()[0]
    row = int(np.flatnonzero(arrays["valid_gold"] >= 0)[0])
    wrong = (arrays["valid_gold_entity"][row] + 1) % 24
    changes: dict[str, Any] = {**_changed("valid_gold_entity", row, wrong)}
    assert f"valid_gold row {row} names slot" in refusal(lambda: _finish(tmp_path, **changes))


def test_finish_refuses_odd_groups(tmp_path: Path) -> None:
    many = [f"kind:{i}" for i in range(33)]
    assert "33 groups" in refusal(lambda: _finish(tmp_path, groups=many))


def test_thirty_two_groups_fit(tmp_path: Path) -> None:
    all_bits: dict[str, Any] = {**_changed("train_groups", slice(None), 2**32 - 1)}
    _finish(tmp_path, groups=[f"kind:{i}" for i in range(32)], **all_bits)
    assert Store.open(tmp_path / "store").array("train_groups")[0] == 2**32 - 1


def test_write_refuses_what_the_schema_has_not(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {})
    assert "no array 'txt'" in refusal(lambda: writer.write("txt", np.zeros(3)))
    wrong = np.zeros((3, 2))
    assert "must be float32 [E, t]" in refusal(lambda: writer.write("entity_text", wrong))
    assert "not valid Unicode" in refusal(
        lambda: writer.write_strings("entity_id", ["a", "\ud800"])
    )
