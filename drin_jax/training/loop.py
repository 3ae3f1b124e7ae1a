"""The training loop: it can stop and go on at any step, and keeps what was best on valid."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.output import Progress, say
from drin_jax.evaluation.ranks import NotFinite
from drin_jax.parallel import multihost
from drin_jax.parallel.data_parallel import DataParallel
from drin_jax.training.batches import Steps
from drin_jax.training.checkpoint import Checkpoints, Position
from drin_jax.training.metric_log import MetricLog
from drin_jax.training.step import NEVER, TrainState
from drin_jax.types import Metrics

DISPATCH_SECONDS = 1.0  # about; what a dispatch costs is nothing beside it
FIRST_DISPATCH = 4  # steps, before their rate is known


class Terminated(SystemExit):
    """The run was asked to stop (SIGTERM: exit code 143, SIGINT: 130)."""


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Inside this context SIGTERM and SIGINT are only noted, so that the loop can save first."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """A run: state, data position, and where they are kept. It begins where the checkpoints end.

    Args:
        steps: where batches come from, and how many steps a dispatch has.
        workdir: for checkpoints and metrics.
        evaluate: scores the parameters on valid; the state with the best score is kept.
        describe_step: names the mentions of a step's batch, for the error of a step not finite.
        train: the config's fields of this name.
        store: fingerprint of the data's, as `Checkpoints` takes it.
        save_seconds: between saves at the ends of epochs, at least; until then the best state is
            kept on the devices, and a kill loses no more than this time; the end of `fit` saves
            nothing. Of several processes, whose clocks differ, every epoch is saved.
        title: of the progress bar.
        tensorboard: whether metrics are written for it too.
    """

    def __init__(
        self,
        *,
        state: TrainState,
        steps: Steps,
        parallel: DataParallel,
        workdir: Path,
        evaluate: Callable[[Any], float],
        describe_step: Callable[[int], str],
        train: ConfigDict,
        store: str = "",
        save_seconds: float = 0.0,
        title: str = "training",
        tensorboard: bool = True,
    ):
        self.steps = steps
        self.state = parallel.replicate(state)
        self.evaluate = evaluate
        self.describe_step = describe_step
        self.patience, self.save_every = train.patience, train.save_every
        self.log_every = train.log_every
        self.save_seconds = save_seconds if jax.process_count() == 1 else 0.0
        self.title = title
        self.steps_per_epoch = steps.order.steps_per_epoch
        self.total_steps = train.epochs * self.steps_per_epoch
        self.checkpoints = Checkpoints(workdir / "checkpoints", store)
        self.position = Position(loader=steps.order.position(0))
        self.step = 0
        if self.checkpoints.last_step is not None:
            self.step, self.state, self.position = self.checkpoints.restore(self.state)
            self.steps.go_to(self.steps.order.step_at(self.position.loader))
        self.log = MetricLog(workdir, after=self.step, tensorboard=tensorboard)
        self.seconds = 0.0
        self._saved, self._saved_step = time.perf_counter(), self.step
        self._unsaved_best: tuple[int, TrainState, Position] | None = None
        self._pending: list[tuple[int, int, Metrics]] = []
        self._looked: float | None = None  # when the host last waited for steps
        self._rate = 0.0  # steps a second, 0: not known

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience is over; both may be raised for a later start."""
        return self.step >= self.total_steps or 0 < self.patience <= self.position.stale

    def fit(self) -> None:
        """Train to the end, or until patience or a signal ends it.

        Raises:
            NotFinite: a loss, a gradient or a score on valid that is not finite; the checkpoints
                keep the last good state.
            Terminated: after a signal, with everything saved.
        """
        began = time.perf_counter()
        resumed_at = self.step
        self._progress = Progress(self.title, total=self.total_steps, done=self.step)
        with stop_signals() as received, self._progress:
            while not self.finished:
                self._dispatch()
                epoch_ends = self.step % self.steps_per_epoch == 0
                save_due = self.step % self.save_every == 0
                look = sum(n for _, n, _ in self._pending) >= self._window()
                asked = received[-1] if received else None
                stop = multihost.agree_on_stop(asked, look or epoch_ends or save_due)
                if epoch_ends or save_due or stop:
                    self._fetch()
                elif look:
                    self._fetch(ahead=1)  # the newest goes on while the host reads the others
                if epoch_ends:
                    self._end_epoch()
                waited = time.perf_counter() - self._saved >= self.save_seconds
                if stop or save_due or (waited and epoch_ends):
                    self.save()
                if stop:
                    self.checkpoints.wait()
                    say(
                        f"{signal.Signals(stop).name}: step {self.step} of {self.total_steps} is "
                        "saved; the same command goes on from there"
                    )
                    raise Terminated(128 + stop)
        self.checkpoints.wait()
        self.seconds = time.perf_counter() - began
        self.steps_run = self.step - resumed_at

    def _dispatch(self) -> None:
        """Start the next steps: until the host has something to do, or a look at them is due."""
        most = min(
            self._window(), *(n - self.step % n for n in (self.save_every, self.steps_per_epoch))
        )
        self.state, metrics, n = self.steps(self.state, self.step, most)
        self._pending.append((self.step, n, metrics))
        self.step += n
        self._progress.advance(n)

    def _window(self) -> int:
        """Steps between looks: `log_every`, but no more than about a second's worth, so that bars
        move and signals are heard. Processes must agree, so several do without their clocks."""
        if jax.process_count() > 1:
            return self.log_every
        if not self._rate:
            return min(self.log_every, FIRST_DISPATCH)
        return min(self.log_every, max(1, int(DISPATCH_SECONDS * self._rate)))

    def _end_epoch(self) -> None:
        try:
            score = self.evaluate(self.state.params)
        except NotFinite as error:
            self._fail(self.step, f"after step {self.step} {error}")
        at = self.position
        if score > at.best_score:
            self.position = dataclasses.replace(at, best_step=self.step, best_score=score, stale=0)
            # The next step donates its state.
            kept = jax.tree.map(jnp.copy, self.state) if self.save_seconds else self.state
            self._unsaved_best = self.step, kept, self._now()
        else:
            self.position = dataclasses.replace(at, stale=at.stale + 1)
        self.log.write(
            self.step, {"epoch": self.step // self.steps_per_epoch, "valid_score": score}
        )
        self._looked = None

    def _now(self) -> Position:
        return dataclasses.replace(self.position, loader=self.steps.order.position(self.step))

    def save(self) -> None:
        """Save the best state, unless it is on disk, and this one."""
        if self._saved_step == self.step:
            return
        self.log.flush()  # no line that comes before the checkpoint may be lost with it
        if self._save_best() != self.step:
            self.checkpoints.save(self.step, self.state, self._now())
        self._saved, self._saved_step = time.perf_counter(), self.step

    def _save_best(self) -> int | None:
        """The step of the best state, if it was not on disk yet."""
        if self._unsaved_best is None:
            return None
        step, state, position = self._unsaved_best
        self.checkpoints.save(step, state, position, score=position.best_score)
        self._unsaved_best = None
        return step

    def _fetch(self, ahead: int = 0) -> None:
        """Bring the losses of all dispatches but the newest `ahead` to the host, look at them, and
        write them down."""
        until = len(self._pending) - ahead
        pending, self._pending = self._pending[:until], self._pending[until:]
        if not pending:
            return
        fetched = jax.device_get([metrics for _, _, metrics in pending])
        now = time.perf_counter()
        if self._looked is not None:
            self._rate = sum(n for _, n, _ in pending) / max(now - self._looked, 1e-9)
        self._looked = now
        values = []
        for (first, n, _), metrics in zip(pending, fetched, strict=True):
            for i in range(n):
                one = {name: np.atleast_1d(series)[i] for name, series in metrics.items()}
                if one["failed"] != NEVER:
                    failed, loss = int(one["failed"]), float(one["loss"])
                    batch = self.describe_step(failed)
                    self._fail(failed, f"step {failed} is not finite (loss {loss}): {batch}")
                values.append(float(one["loss"]))
                self.log.write(
                    first + i + 1, {"loss": values[-1], "grad_norm": float(one["grad_norm"])}
                )
        self._progress.note(f"loss {np.mean(values):.4f}")
        self.log.flush()

    def _fail(self, step: int, what: str) -> NoReturn:
        self._save_best()
        self.checkpoints.drop_from(step)
        kept = self.checkpoints.last_step
        raise NotFinite(
            f"{what}; "
            + (f"the checkpoint of step {kept} is kept" if kept else "nothing was saved yet")
            + "; lower train.learning_rate or look at those features"
        )

    def best_params(self) -> Any:
        """The parameters that scored best on valid, on every device."""
        if self._unsaved_best:
            return self._unsaved_best[1].params
        self.checkpoints.wait()
        return self.checkpoints.restore_best(self.state.params)[1]

    def close(self) -> None:
        """Wait for what is being saved, and close all files."""
        self.checkpoints.close()
        self.log.close()
