"""Several training runs that differ in the seed only, as one program over tables on the device.

Run k starts from the parameters and visits the mentions in the order that `drin_jax.main` has with
`seed = k`, and picks its best epoch the same way; its losses equal that run's up to rounding, which
over many steps grows. A batch is a row of numbers, and an epoch, or a second's worth of it, one
dispatch. The runs of a group are `vmap`ped over; groups take turns, each to its end, through the
same compiled program. A group of one is the very step of `drin_jax.main` on one device.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float
from ml_collections import ConfigDict

from data_pipeline.progress import Progress
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.config import RESUMABLE, check, deciding
from drin_jax.evaluation.evaluate import valid_score
from drin_jax.experiments.seeds_checkpoint import SeedsCheckpoint
from drin_jax.experiments.seeds_program import SeedsProgram, split_scores, stack
from drin_jax.training.device_tables import DeviceTables
from drin_jax.training.setup import set_up
from drin_jax.training.step import NEVER
from drin_jax.workdir import claim

# What a checkpoint may differ in. Not the patience: a group's stopped runs are not kept as they
# were when they stopped.
FREE_FIELDS = deciding(*RESUMABLE) - {"train.patience"} | {"seed"}


@dataclasses.dataclass
class SeedRun:
    """One run. Scores are of the valid split by `eval.select_by`, losses means over an epoch.

    `best_step` is the step after which the best epoch ended (-1: none did), `params` that epoch's
    parameters as a pure dict of NumPy arrays, `stale` the epochs since. `failure` says in one line
    why a run ended before its time; what came before it counts.
    """

    seed: int
    best_step: int = -1
    best_score: float = float("-inf")
    valid_curve: list[float] = dataclasses.field(default_factory=list)
    loss_curve: list[float] = dataclasses.field(default_factory=list)
    epochs: int = 0
    stale: int = 0
    params: Any = None
    failure: str | None = None

    def finished(self, epochs: int, patience: int) -> bool:
        """Whether it failed, had all epochs, or `patience` (0: any) without a better one."""
        return self.failure is not None or self.epochs >= epochs or 0 < patience <= self.stale

    def end_epoch(self, step: int, loss: float, score: float) -> bool:
        """Note an epoch that ended after `step` steps; whether it is the best so far."""
        better = score > self.best_score
        if better:
            self.best_step, self.best_score = step, score
        self.stale = 0 if better else self.stale + 1
        self.loss_curve.append(loss)
        self.valid_curve.append(score)
        self.epochs += 1
        return better


def default_together() -> int:
    """How many runs share a program where the caller does not say: on a CPU 1, whose products fill
    the cores already (`benchmarks.seeds` measures it), elsewhere 0, as many as fit."""
    return 1 if jax.default_backend() == "cpu" else 0


def train_seeds(
    config: ConfigDict,
    store: Store,
    seeds: Sequence[int],
    *,
    checkpoint: Path | None = None,
    title: str = "",
    together: int | None = None,
) -> list[SeedRun]:
    """Train a run for each seed; `config.seed` plays no part.

    Args:
        checkpoint: a folder of its own, in which the end of every epoch is kept; started again
            with the same config, seeds and `together` it goes on there, with equal results.
        title: of the progress bar.
        together: runs in one `vmap`; 0: all, in as few groups as fit; None: `default_together`.

    Raises:
        UserError: a field that cannot be meant, seeds that repeat, tables or a single run that do
            not fit into the device's memory, no valid mention to select by, or a checkpoint of
            another config.
    """
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds are {seeds}; give one or more, from 0 on, each once")
    check(config)
    if checkpoint:
        claim(checkpoint, config, free=FREE_FIELDS)
    program = SeedsProgram(config, store)
    together = default_together() if together is None else together
    size = program.fitting(min(together or len(seeds), len(seeds)))
    runs: list[SeedRun] = []
    total = config.train.epochs * program.steps_per_epoch * len(seeds)
    with Progress(title or f"training {len(seeds)} seeds", total) as progress:
        for first in range(0, len(seeds), size):
            runs += _train_group(program, seeds[first : first + size], checkpoint, progress)
    return runs


def score_seeds(
    config: ConfigDict, store: Store, params: Sequence[Any], split: str
) -> Float[np.ndarray, "s n r"]:
    """Scores of a split's mentions, in file order, with the parameters of each run."""
    setup = set_up(config, store)
    tables = DeviceTables.of(store, split, setup.spec)
    states = []
    for pure in params:
        state = jax.tree.map(lambda leaf: leaf, setup.params)  # not the same object
        nnx.replace_by_pure_dict(state, pure)
        states.append(state)
    size = default_together() or len(states)
    groups = [stack(states[i : i + size]) for i in range(0, len(states), size)]
    return np.concatenate(
        [split_scores(setup.graphdef, group, tables, config.eval.batch) for group in groups]
    )


def _train_group(
    program: SeedsProgram, seeds: list[int], checkpoint: Path | None, progress: Progress
) -> list[SeedRun]:
    """Runs that are trained together, to their ends."""
    train, select_by = program.config.train, program.config.eval.select_by
    runs = [SeedRun(seed) for seed in seeds]
    states = program.initial(seeds)
    best = jax.tree.map(jnp.zeros_like, states.params)
    kept = SeedsCheckpoint(checkpoint, seeds) if checkpoint else None
    if kept and (found := kept.restore((states, best))):
        (states, best), records = found
        runs = [SeedRun(**record) for record in records]
    epoch = max(run.epochs for run in runs)  # all that go on are there
    progress.advance(epoch * program.steps_per_epoch * len(seeds))
    while not all(run.finished(train.epochs, train.patience) for run in runs):
        states, losses = program.epoch(states, seeds, epoch, progress)
        failed = jax.device_get(states.failed)
        scores = program.valid_scores(states.params)
        epoch += 1
        better = np.zeros(len(seeds), bool)
        for k, one in enumerate(runs):
            if one.finished(train.epochs, train.patience):
                continue
            if failed[k] != NEVER:
                one.failure = (
                    f"step {failed[k]} is not finite; lower train.learning_rate or look at the "
                    "features"
                )
                continue
            score = valid_score(program.view, scores[k], select_by)
            step = epoch * program.steps_per_epoch
            better[k] = one.end_epoch(step, float(np.mean(losses[k])), score)
        best = _keep(better, states.params, best)
        progress.note(f"epoch {epoch}, valid " + " ".join(f"{one.best_score:.4f}" for one in runs))
        if kept:
            kept.save((states, best), [dataclasses.asdict(one) for one in runs])
    host = jax.device_get(best)
    for k, one in enumerate(runs):
        if one.best_step >= 0:
            one.params = nnx.to_pure_dict(jax.tree.map(lambda leaf, k=k: leaf[k], host))
    return runs


@jax.jit
def _keep(better: Any, params: Any, best: Any) -> Any:
    """Of each run the new parameters where they are better."""

    def one(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(one, params, best)
