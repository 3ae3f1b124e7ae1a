"""Checkpoints of a run: states with their data position, of which the newest and the best are kept.

    WORKDIR/checkpoints/STEP     params, the rest of the state, position; a score on valid if the
                                 state was the best so far

A checkpoint appears whole or not at all (orbax writes a temporary folder and renames it), and only
then are others deleted. So a run that is killed at any moment finds the newest whole one, and
beside it the best that this one knows of.
"""

import contextlib
import dataclasses
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from data_pipeline.schema import UserError, reason

SCORE, STORE = "valid", "store"


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run stands, beside its arrays: everything that decides how it goes on.

    `loader` is the data position; `best_step` and `best_score` name the best state on valid so far
    (-1: none yet), `stale` counts the epochs since.
    """

    loader: dict[str, Any]
    best_step: int = -1
    best_score: float = -1.0
    stale: int = 0


class Checkpoints:
    """The checkpoints under `folder`: the two newest and the two best, so that where the newest has
    to go there is one to go on from, and the best it knows of. Saving goes on in the background.

    Args:
        store: fingerprint of the feature store that the run is over, kept in every checkpoint.
        read_only: nothing is written or cleaned up, as for a look at a run that may be in training.
        alone: of several processes this one alone saves and restores, and nobody waits for others.

    Raises:
        UserError: the folder is of a version that kept the newest and the best apart; or, where
            one is restored, it is of a run over another store.
    """

    def __init__(self, folder: Path, store: str = "", read_only: bool = False, alone: bool = False):
        self.folder, self._store = folder, store
        if (folder / "last").exists() or (folder / "best").exists():
            raise UserError(
                f"{folder}: checkpoints of an older version of this program (folders last and "
                "best); train again in another --workdir"
            )

        score = operator.itemgetter(SCORE)
        best = BestN(get_metric_fn=score, n=2, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # without it orbax writes no metrics
            preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
            cleanup_tmp_directories=not read_only,
            create=not read_only and not alone,
            multiprocessing_options=_processes(alone),
            save_interval_steps=0 if read_only else 1,
            read_only=read_only,
        )
        if alone:
            folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def last_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the state that scored best on valid, or None."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, position: Position, score: float | None = None) -> None:
        """Save state and position as of `step`.

        Args:
            state: a dataclass of trees of arrays, with a field `params`.
            score: on valid, of a state that scores better than all before; None for any other,
                which then never counts as the best.
        """
        params, rest = _parts(state)
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(params),
                    rest=ocp.args.StandardSave(rest),
                    position=ocp.args.JsonSave(dataclasses.asdict(position) | {STORE: self._store}),
                ),
                metrics=None if score is None else {SCORE: score},
            )

    def restore(self, like: Any) -> tuple[int, Any, Position]:
        """Step, state and position of the newest checkpoint, shaped and laid out like `like`."""
        step = int(self.last_step or 0)
        params, rest = _parts(like)
        found = self._read(step, params=_restore(params), rest=_restore(rest))
        state = like.replace(params=found["params"], **found["rest"])
        return step, state, Position(**found["position"])

    def restore_best(self, like: Any) -> tuple[int, Any]:
        """Step and parameters of the state that scored best on valid, laid out like `like`."""
        step = self.best_step
        if step is None:
            raise UserError(f"{self.folder}: no checkpoint; train again in another --workdir")
        return step, self._read(step, params=_restore(like))["params"]

    def _read(self, step: int, **args: Any) -> Any:
        wanted = ocp.args.Composite(position=ocp.args.JsonRestore(), **args)
        try:
            found = dict(self._manager.restore(step, args=wanted).items())
        except Exception as error:  # damage surfaces as whatever tensorstore or orbax meets first
            raise UserError(
                f"{self.folder / str(step)}: unreadable checkpoint ({type(error).__name__}: "
                f"{reason(error)}); delete that folder to go on from the one before it, or use "
                "another --workdir"
            ) from error
        store = found["position"].pop(STORE, "")  # older checkpoints have none
        if store and self._store and store != self._store:
            raise UserError(
                f"{self.folder} holds a run over another feature store than the one that is there "
                "now; delete that folder to train anew, or use another --workdir"
            )
        return found

    def drop_from(self, step: int) -> None:
        """Delete the states of this step and later ones: a state whose own loss is not finite was
        spoilt by the step before it, and is no place to go on from."""
        self.wait()
        for saved in self._manager.all_steps():
            if saved >= step:
                self._manager.delete(saved)

    def wait(self) -> None:
        """Return when everything saved is on disk. UserError where it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What cannot be written surfaces here or at a later save, as whatever met it first."""
        try:
            yield
        except Exception as error:
            full = "No space left on device"
            why = full if full in str(error) else reason(error)
            raise UserError(
                f"{self.folder}: a checkpoint cannot be written ({why}); mend that and "
                "start the same command again, which goes on from the one before it"
            ) from error

    def close(self) -> None:
        """Waits for what is being written."""
        with contextlib.suppress(Exception):
            self.wait()
        self._manager.close()


def _processes(alone: bool) -> ocp.options.MultiprocessingOptions:
    if not alone:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"alone_{own}"
    )


def _parts(state: Any) -> tuple[Any, dict[str, Any]]:
    """A state's parameters, which are read alone where nothing is trained, and its other fields, of
    those it has: what a run does without is not in its checkpoints, nor was in older ones."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    params = rest.pop("params")
    return params, {name: value for name, value in rest.items() if value is not None}


def _restore(like: Any) -> Any:
    return ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
