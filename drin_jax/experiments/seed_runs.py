"""A training run of one seed of a suite's row: what `drin_jax.main` does, and leaves no more than
what is reported.

Run k starts from the parameters, visits the mentions in the order and picks the epoch that
`drin_jax.main` has with `seed = k`, bit for bit. The runs of a row share a `Session`: one copy of
the features on the devices, and programs that are compiled once.
"""

import dataclasses
from pathlib import Path
from typing import Any

from drin_jax.training.metric_log import curves
from drin_jax.training.session import Session

# Most runs of a suite take seconds, and saving a state takes as long as an epoch of theirs.
SAVE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """A finished run. `params` are those after `best_step` steps, when the best epoch ended.

    Scores are of the valid split by `eval.select_by`, losses means over an epoch.
    """

    seed: int
    params: Any
    best_step: int
    best_score: float
    loss_curve: list[float]
    valid_curve: list[float]


def train_seed(session: Session, seed: int, folder: Path, title: str) -> SeedRun:
    """Train a run, or go on with the one that a kill left in `folder`.

    Args:
        folder: for this run's checkpoints and metrics.
        title: of the progress bar.

    Raises:
        NotFinite: a loss that is not finite.
        UserError: a checkpoint that cannot be read, or is of another order.
    """
    trainer = session.trainer(
        seed, folder, save_seconds=SAVE_SECONDS, title=title, tensorboard=False
    )
    try:
        trainer.fit()
        params, position = trainer.best_params(), trainer.position
    finally:
        trainer.close()
    return SeedRun(seed, params, position.best_step, position.best_score, *curves(folder))
