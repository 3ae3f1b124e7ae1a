"""The benchmarks of whole runs at tiny sizes: what they print is what they measured."""

import json
import math

import pytest

from benchmarks import predict, report, scaling, start, synthetic_store
from benchmarks.resident_run import ResidentRun
from benchmarks.synthetic_store import Shape

TINY = Shape(entities=50, train=70, valid=4, test=4, r=6, text=8, image=12)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return synthetic_store.write(tmp_path_factory.mktemp("synthetic") / "store", TINY)


@pytest.fixture(scope="module")
def training(store):
    return ResidentRun(store, synthetic_store.config_for(width=8, batch=16))


def test_predictions_follow_from_the_program(training):
    step = predict.cost(training)
    candidates, widths = 16 * 6, (8 + 12) * 8
    assert 2 * candidates * widths < step["flops"] < 100 * candidates * widths
    assert step["bytes"] > 4 * candidates * (8 + 12)
    assert predict.small(TINY, 16).entities == 16
    device = predict.Device({"float32": 10.0}, bytes=5.0, source="")
    found = predict.bound({"flops": 20, "bytes": 30}, 3, device, "float32")
    assert found == {"arithmetic_s": 6, "memory_s": 18, "seconds": 18}


def test_a_prefix_of_steps_is_the_run_s_own(store, training):
    other = ResidentRun(store, synthetic_store.config_for(width=8, batch=16))
    other.compile()
    assert (training.steps_per_epoch, other.step) == (5, 0)
    losses = training.train(7)
    assert losses.shape == (7,)
    assert [*other.train(3), *other.train(4)] == [*losses]


def test_growth_is_held_against_linear(tmp_path, monkeypatch):
    assert scaling.slope([10, 100, 1000], [3, 30, 300]) == pytest.approx(1)
    assert scaling.slope([1, 2, 4], [5, 20, 80]) == pytest.approx(2)
    rows = [
        {"axis": axis, "time_slope": 1.3, "memory_slope": 1.0} for axis in ("r", "batch", "layers")
    ]
    found = scaling.worse_than_linear(rows)
    assert [line.split(" at ")[0] for line in found] == [
        "time grows with r",
        "time grows with batch",
    ]
    monkeypatch.setattr(scaling, "BASE", TINY)
    monkeypatch.setattr(scaling, "WIDTH", 4)
    monkeypatch.setattr(scaling, "MIDDLE", {"r": 2, "batch": 32, "layers": 1})
    row = scaling.grow("r", [1, 6], 1, tmp_path)
    assert [one["size"] for one in row["points"]] == [1, 6]
    assert all(one["cpu_s"] > 0 for one in row["points"])
    assert row["points"][0]["bytes"] < row["points"][1]["bytes"]
    assert 0 < row["memory_slope"] < scaling.LINEAR


def test_starts_are_taken_apart():
    found = start._phases(10.0, [12.0, 13.0, 16.0, 16.5])
    assert found == {"import": 2, "build": 1, "compile": 3, "first_step": 0.5, "before": 4}


def test_a_prediction_is_written_into_the_document_and_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(synthetic_store.SHAPES, "tiny", TINY)
    results = tmp_path / "results"
    document = tmp_path / "performance.md"
    document.write_text(
        "Prose.\n\n<!-- table: predict-tiny -->\nold\n<!-- end of table -->\n\nMore.\n"
    )
    arguments = ["--shape=tiny", "--epochs=2", "--batch=16", "--width=8"]
    predict.main([*arguments, "--measure", "--json", str(results / "predict-tiny.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["steps"] == result["measured"]["steps"] == 10
    assert math.isfinite(result["measured"]["loss"])
    command = [str(results), "--document", str(document)]
    with pytest.raises(SystemExit, match="disagrees"):
        report.main([*command, "--check"])
    report.main(command)
    report.main([*command, "--check"])
    text = document.read_text()
    assert text.startswith("Prose.\n\n<!-- table: predict-tiny -->\n| device |")
    assert text.endswith("|\n<!-- end of table -->\n\nMore.\n")
    assert "| H100 SXM | predicted |" in text
    assert "| cpu | measured, 10 steps |" in text


def test_a_report_says_what_it_lacks(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text("<!-- table: epoch -->\n<!-- end of table -->\n")
    with pytest.raises(SystemExit, match="holds no results"):
        report.main([str(tmp_path), "--document", str(document)])
    (tmp_path / "seeds.json").write_text("{}")
    with pytest.raises(SystemExit, match="no table of 'seeds'"):
        report.main([str(tmp_path), "--document", str(document)])
    (tmp_path / "seeds.json").rename(tmp_path / "start.json")
    with pytest.raises(SystemExit, match=r"not what benchmarks\.start writes"):
        report.main([str(tmp_path), "--document", str(document)])
    row = {"time_slope": 1, "memory_slope": 1, "axis": "r", "points": [{"size": 1, "cpu_s": 1}]}
    (tmp_path / "start.json").unlink()
    (tmp_path / "scaling.json").write_text(json.dumps({"rows": [row]}))
    with pytest.raises(SystemExit, match="table 'scaling': 0 places"):
        report.main([str(tmp_path), "--document", str(document)])
