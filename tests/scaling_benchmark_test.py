"""The benchmarks of growth and of a whole training, at tiny sizes."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import predict, scaling
from benchmarks.synthetic_run import Shape, SyntheticRun


def test_slopes_are_of_logarithms() -> None:
    points = (10, 30, 100)
    assert scaling.slope(points, [3.0 * p**2 for p in points]) == pytest.approx(2)
    assert scaling.slope(points, [7.0, 7.0, 7.0]) == pytest.approx(0)
    assert scaling.slope(points, [0.0, 1.0, 2.0]) == 0


def test_growth_that_is_worse_than_linear_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--axes", "r", "--width=8", "--repeats=1", "--largest=30"]
    monkeypatch.setattr(scaling, "WORST_SLOPE", 10.0)
    path = tmp_path / "scaling.json"
    assert scaling.main([*arguments, f"--json={path}"]) == 0
    (axis,) = json.loads(path.read_text())["axes"]
    assert [row["r"] for row in axis["rows"]] == [10, 30]
    assert all(row["seconds"] > 0 for row in axis["rows"])
    assert 0 < axis["slopes"]["table_bytes"] < 1

    def quadratic(shape: Shape, repeats: int) -> dict[str, float]:
        return dict.fromkeys(("seconds", "temporary_bytes", "table_bytes"), shape.r**2)

    monkeypatch.setattr(scaling, "WORST_SLOPE", 1.1)
    monkeypatch.setattr(scaling, "measure", quadratic)
    assert scaling.main(arguments) == 1
    assert "error: worse than linear: r (seconds 2.00)" in capsys.readouterr().err


def test_a_step_costs_what_its_products_do() -> None:
    shape = Shape(text=16, image=24, width=32, batch=8, r=60)
    small = predict.cost(shape)
    # Twice the batch: about twice the operations; Adam and the products of the weights alone stay.
    large = predict.cost(dataclasses.replace(shape, batch=16))
    assert 1.5 < large["flops"] / small["flops"] < 2.1
    # Entities do not count, however many there are.
    assert predict.cost(dataclasses.replace(shape, entities=5000)) == small
    rates = {"float32": 1e9, "bytes": 1e30}
    assert predict.roofline(small, rates, "float32", 3) == pytest.approx(3 * small["flops"] / 1e9)
    assert predict.known_rates("TPU v5 lite") == predict.DEVICES["TPU v5e"]
    assert predict.known_rates("NVIDIA H100 80GB HBM3") == predict.DEVICES["NVIDIA H100"]
    assert predict.known_rates("cpu") is None


def test_a_synthetic_run_trains() -> None:
    run = SyntheticRun(Shape(mentions=40, text=8, image=8, width=8, batch=16, entities=30))
    run.advance(4)  # an epoch and a step of the next
    assert int(run.state.step) == run.step == 4
    assert run.table_bytes() == sum(
        leaf.nbytes for leaf in (*run.tables.shared.values(), *run.tables.split.values())
    )
