"""A run's metrics: `metrics.jsonl`, a line a step, and the same for TensorBoard.

clu's metric writers need TensorFlow; this needs tensorboardX only.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
from tensorboardX import SummaryWriter

from data_pipeline.files import write_text


class MetricLog:
    """Appends to WORKDIR/metrics.jsonl and WORKDIR/tensorboard. Only process 0 writes.

    Args:
        after: the step a run goes on from: what was written beyond it, by a run that was killed
            after its last checkpoint, is dropped, so that no step is told twice.
    """

    def __init__(self, workdir: Path, after: int = 0):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        path = workdir / "metrics.jsonl"
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= after]
        write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=after + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars as of `step`."""
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything written to the operating system."""
        if self._active:
            self._file.flush()
            self._board.flush()

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines that a killed run finished writing."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            break
        lines.append(line)
    return lines
