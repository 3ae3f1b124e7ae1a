"""The metrics of a run, read back."""

from pathlib import Path

import pytest

from drin_jax.training.metric_log import METRICS, curves

WHOLE = '{"step": 1, "loss": 0.5}\n{"step": 1, "epoch": 1, "valid_score": 0.25}\n'


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, "3", '{"step": "2"}', '{"step": 2, "loss": null}', '{"step": 2}', '{"st'],
)
def test_curves_end_before_a_line_that_no_run_wrote(line: str, tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(f"{WHOLE}{line}\n{WHOLE}")
    assert curves(tmp_path) == ([0.5], [0.25])


def test_an_epoch_without_a_step_has_no_loss(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text(WHOLE.splitlines()[1])
    losses, scores = curves(tmp_path)
    assert str(losses) == "[nan]"
    assert scores == [0.25]
