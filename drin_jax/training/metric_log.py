"""A run's metrics: `metrics.jsonl`, a line a step and one an epoch, and the same for TensorBoard.

clu's metric writers need TensorFlow; this needs tensorboardX only.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from data_pipeline.files import write_text

METRICS = "metrics.jsonl"


class MetricLog:
    """Appends to WORKDIR/metrics.jsonl and WORKDIR/tensorboard. Only process 0 writes.

    Args:
        after: the step a run goes on from: what was written beyond it, by a run that was killed
            after its last checkpoint, is dropped, so that no step is told twice.
        tensorboard: whether there is a WORKDIR/tensorboard.
    """

    def __init__(self, workdir: Path, after: int = 0, tensorboard: bool = True):
        self._file: Any = None
        self._board: Any = None
        if jax.process_index() > 0:
            return
        path = workdir / METRICS
        kept = [fields for fields in _whole_lines(path) if fields["step"] <= after]
        write_text(path, "".join(json.dumps(fields) + "\n" for fields in kept))
        self._file = path.open("a")
        if tensorboard:
            self._board = tensorboard_writer()(str(workdir / "tensorboard"), purge_step=after + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars as of `step`."""
        if self._file:
            self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        if self._board:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything written to the operating system."""
        for out in filter(None, (self._file, self._board)):
            out.flush()

    def close(self) -> None:
        """Closes the files."""
        for out in filter(None, (self._file, self._board)):
            out.close()


def tensorboard_writer() -> Any:
    """tensorboardX's SummaryWriter, imported without torch, which it would load for seconds where
    it is installed."""
    missing = "torch" not in sys.modules
    if missing:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if missing:
            del sys.modules["torch"]
    return SummaryWriter


def curves(workdir: Path) -> tuple[list[float], list[float]]:
    """Mean loss and valid score of every epoch that a run has ended."""
    losses: list[float] = []
    means, scores = [], []
    for fields in _whole_lines(workdir / METRICS):
        if "loss" in fields:
            losses.append(fields["loss"])
        else:
            means.append(sum(losses) / len(losses) if losses else math.nan)
            scores.append(fields["valid_score"])
            losses = []
    return means, scores


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What stands in the lines that a killed run finished writing, up to one that no run wrote."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(fields, dict) or type(fields.get("step")) is not int:
            break
        scores = [fields[name] for name in ("loss", "valid_score") if name in fields]
        if not scores or not all(isinstance(score, float) for score in scores):
            break
        lines.append(fields)
    return lines
