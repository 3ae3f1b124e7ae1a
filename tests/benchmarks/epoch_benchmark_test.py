"""The epoch benchmark at a tiny size: both sides run, and the peer's batch is the layout's."""

import numpy as np
import pytest

from benchmarks.synthetic_store import Shape

pytest.importorskip("torch", reason="the peer is PyTorch (extra dev)")

from benchmarks import epoch, preprocessed, report
from tests.support.tolerance import assert_close

TINY = Shape(entities=20, train=70, valid=4, test=4, r=3, text=8, image=6)


@pytest.mark.parametrize("name", ["wikidiverse", "wikimel"])
def test_the_peer_s_graphs_are_those_of_its_files(tmp_path, name):
    import torch
    from torch.utils.data import default_collate

    arrays = preprocessed.layout(name, 5, TINY.entities, TINY.r, TINY.text, TINY.image)
    preprocessed.write(tmp_path / "files", arrays, TINY.entities, TINY.r)
    files = {path.stem: np.load(path) for path in (tmp_path / "files").iterdir()}
    assert preprocessed.size(arrays) == sum(array.nbytes for array in files.values())
    data = preprocessed.Mentions(tmp_path / "files", TINY.r)
    assert len(data) == 5
    graph = preprocessed.graph(default_collate([data[i] for i in (4, 1)]))
    for place, i in enumerate((4, 1)):
        begin, end = files["start-pos"][i] + 1, files["end-pos"][i] + 1
        text = files["mention-text-feature"][i, begin:end].mean(0)
        assert_close(graph["mention_text"][place], text)
        image = files["mention-image-feature"][i].mean(0)
        assert_close(graph["mention_image"][place], image)
        for k in range(TINY.r):
            if name == "wikidiverse":
                row = i * (TINY.r + 1) + k
                entity = files["entity-attr-feature"][row]
            else:
                row = files["candidates"][i, k]
                entity = files["entity-attr-feature"][row].mean(0)
            assert_close(graph["entity_text"][place, k], entity)
            image = files["entity-image-feature"][row, 0]
            np.testing.assert_array_equal(graph["entity_image"][place, k], image)
        np.testing.assert_array_equal(graph["edges"][place, 1], files["similarity-eimt"][i, :-1])
    assert graph["edges"].shape == (2, 4, TINY.r)
    assert torch.isfinite(graph["edges"]).all()


def test_a_row_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr(epoch, "BATCH", 16)
    monkeypatch.setattr(epoch, "WIDTH", 8)

    def in_a_process(module, side, first, *rest):
        numbers = [float(number) if "." in number else int(number) for number in rest]
        return {"--child=ours": epoch.ours, "--child=theirs": epoch.theirs}[side](first, *numbers)

    monkeypatch.setattr(epoch, "in_a_process", in_a_process)
    row = epoch.measure("wikidiverse", TINY, tmp_path, store=None, steps=2, batches=2, workers=0)
    full = preprocessed.layout("wikidiverse", 78, 20, 3, 8, 6)
    assert row["layout_gb"] == pytest.approx(preprocessed.size(full) / 1e9)
    assert (row["ours"]["steps"], row["theirs"]["batches"]) == (2, 2)
    for side in ("ours", "theirs"):
        for kind in ("wall_s", "cpu_s"):
            parts = row[side]["loading"][kind] + row[side]["arithmetic"][kind]
            assert row[side]["epoch"][kind] == pytest.approx(parts)
    assert row["ratio_epoch"]["wall_s"] > 0
    assert row["memory_share"] > 1  # the program alone is larger than so little data
    table = report.epoch({"rows": [row]})
    assert table.count("\n") == 4
