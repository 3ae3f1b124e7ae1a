"""Training: the per-device step, and one loop that can stop and go on at any step."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Int

from data_pipeline.loader import TrainLoader
from drin_jax.checkpoint import Checkpoints, Position
from drin_jax.losses import margin_loss
from drin_jax.metric_log import MetricLog
from drin_jax.parallel import AXIS, DataParallel
from drin_jax.progress import Progress
from drin_jax.types import GraphBatch, Metrics, UserError

NEVER = -1


@flax.struct.dataclass
class TrainState:
    """Everything a step changes. `failed` is the first step that was not finite, or -1; from there
    on the state is frozen, so the last good parameters survive until the host looks."""

    step: Int[Array, ""]
    failed: Int[Array, ""]
    params: Any
    opt_state: Any


def create_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        failed=jnp.full((), NEVER, jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
    )


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    loss_form: str,
    margin: float,
    gold_slot: bool = False,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """One optimizer step on one device's share of a batch, to be wrapped by `DataParallel`."""

    def train_step(state: TrainState, arrays: Any) -> tuple[TrainState, Metrics]:
        batch = GraphBatch.from_host(arrays, gold_slot)

        def loss_of(params: Any) -> jax.Array:
            scores, aux = nnx.merge(graphdef, params)(batch)
            return margin_loss(scores, aux, batch, form=loss_form, margin=margin, axis_name=AXIS)

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        grads = jax.lax.pmean(grads, AXIS)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = (optax.apply_updates(state.params, updates), opt_state)
        good = finite & (state.failed == NEVER)
        params, opt_state = jax.tree.map(
            lambda a, b: jnp.where(good, a, b), new, (state.params, state.opt_state)
        )
        failed = jnp.where((state.failed == NEVER) & ~finite, state.step, state.failed)
        metrics = {"loss": loss, "grad_norm": norm, "failed": failed}
        return TrainState(state.step + 1, failed, params, opt_state), metrics

    return train_step


class Terminated(SystemExit):
    """The run was asked to stop (SIGTERM: exit code 143, SIGINT: 130)."""


class StopSignals:
    """Inside this context SIGTERM and SIGINT only leave a note, so that the loop can save first."""

    def __init__(self) -> None:
        self.received: int | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def __enter__(self) -> "StopSignals":
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Trainer:
    """A run: state, data position, and where they are kept.

    Args:
        evaluate: scores the parameters on valid; the best score's parameters are kept.
        describe_step: names the mentions of a step's batch, for the error of a step not finite.
    """

    def __init__(
        self,
        *,
        state: TrainState,
        step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
        loader: TrainLoader,
        parallel: DataParallel,
        workdir: Path,
        evaluate: Callable[[Any], float],
        describe_step: Callable[[int], str],
        epochs: int,
        patience: int,
        save_every: int,
        log_every: int,
    ):
        self.step_fn = parallel.train_step(step)
        self.state = parallel.replicate(state)
        self.loader = loader
        self.parallel = parallel
        self.evaluate = evaluate
        self.describe_step = describe_step
        self.patience = patience
        self.save_every = save_every
        self.log_every = log_every
        self.steps_per_epoch = loader.steps_per_epoch
        self.total_steps = epochs * loader.steps_per_epoch
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        self.position = Position(loader=loader.get_state())
        self.step = 0
        self.seconds = 0.0
        self._pending: list[tuple[int, Metrics]] = []
        self._resume()
        self.log = MetricLog(workdir, after=self.step)

    def _resume(self) -> None:
        if self.checkpoints.last_step is None:
            return
        self.step, self.state, self.position = self.checkpoints.restore(self.state)
        self.loader.set_state(self.position.loader)
        # Killed between saving the position and saving the best it names: the state is that best.
        if self.position.best_step == self.step != self.checkpoints.best_step:
            self.checkpoints.save_best(self.step, self.state.params)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience is over; both may be raised for a later start."""
        return self.step >= self.total_steps or 0 < self.patience <= self.position.stale

    def fit(self) -> None:
        """Train to the end, or until patience or a signal ends it.

        Raises:
            UserError: a loss that is not finite; the checkpoints keep the last good state.
            Terminated: after a signal, with everything saved.
        """
        began = time.perf_counter()
        resumed_at = self.step
        with (
            StopSignals() as signals,
            Progress("training", total=self.total_steps, done=self.step) as progress,
        ):
            self._progress = progress
            while not self.finished:
                self.state, metrics = self.step_fn(
                    self.state, self.parallel.shard(next(self.loader))
                )
                self._pending.append((self.step, metrics))
                self.step += 1
                progress.advance()
                epoch_ends = self.step % self.steps_per_epoch == 0
                save_due = self.step % self.save_every == 0
                if self.step % self.log_every == 0 or epoch_ends or save_due or signals.received:
                    self._fetch()
                if epoch_ends:
                    self._end_epoch()
                elif save_due or signals.received:
                    self._save()
                if signals.received:
                    self.checkpoints.wait()
                    raise Terminated(128 + signals.received)
        self.checkpoints.wait()
        self.seconds = time.perf_counter() - began
        self.steps_run = self.step - resumed_at

    def _save(self) -> None:
        self.position.loader = self.loader.get_state()
        self.checkpoints.save(self.step, self.state, self.position)

    def _end_epoch(self) -> None:
        score = self.evaluate(self.state.params)
        better = score > self.position.best_score
        if better:
            self.position.best_step, self.position.best_score = self.step, score
        self.position.stale = 0 if better else self.position.stale + 1
        self.log.write(
            self.step, {"epoch": self.step // self.steps_per_epoch, "valid_score": score}
        )
        self._save()
        if better:
            self.checkpoints.save_best(self.step, self.state.params)

    def _fetch(self) -> None:
        """Bring the pending losses to the host, look at them, and write them down."""
        steps = [step for step, _ in self._pending]
        fetched = jax.device_get([metrics for _, metrics in self._pending])
        self._pending.clear()
        for step, metrics in zip(steps, fetched, strict=True):
            if metrics["failed"] != NEVER:
                failed = int(metrics["failed"])
                self.checkpoints.drop_from(failed)
                kept = self.checkpoints.last_step
                raise UserError(
                    f"step {failed} is not finite (loss {float(metrics['loss'])}): "
                    f"{self.describe_step(failed)}; "
                    + (
                        f"the checkpoint of step {kept} is kept"
                        if kept
                        else "nothing was saved yet"
                    )
                    + "; lower train.learning_rate or look at those features"
                )
            self.log.write(
                step + 1, {"loss": float(metrics["loss"]), "grad_norm": float(metrics["grad_norm"])}
            )
        if fetched:
            self._progress.note(f"loss {np.mean([float(m['loss']) for m in fetched]):.4f}")
        self.log.flush()

    def best_params(self) -> Any:
        """The parameters that scored best on valid, on every device."""
        return self.checkpoints.restore_best(self.state.params)[1]
