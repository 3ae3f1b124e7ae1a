"""Checkpoints of a run: the last state with its data position, and the best one on valid.

    WORKDIR/checkpoints/last/STEP     state and position, the two newest
    WORKDIR/checkpoints/best/STEP     parameters that scored best on valid

A checkpoint appears whole or not at all (orbax writes a temporary folder and renames it), so a run
killed at any moment finds the newest whole one.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from data_pipeline.schema import UserError


@dataclasses.dataclass
class Position:
    """Where a run stands, beside its arrays: everything that decides how it goes on.

    `loader` is the data position; `best_step` and `best_score` name the best state on valid so far
    (-1: none yet), `stale` counts the epochs since.
    """

    loader: dict[str, Any]
    best_step: int = -1
    best_score: float = float("-inf")
    stale: int = 0

    def to_json(self) -> dict[str, Any]:
        """Without infinities, which JSON has not."""
        return dataclasses.asdict(self) | {
            "best_score": self.best_score if self.best_step >= 0 else None
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Position":
        score = fields["best_score"]
        return cls(**fields | {"best_score": float("-inf") if score is None else score})


class Checkpoints:
    """Saves and restores a run's checkpoints under `folder`. Saving goes on in the background."""

    def __init__(self, folder: Path):
        self.folder = folder

        def manager(name: str, keep: int) -> ocp.CheckpointManager:
            options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
            return ocp.CheckpointManager((folder / name).absolute(), options=options)

        self._last = manager("last", 2)
        self._best = manager("best", 1)

    @property
    def last_step(self) -> int | None:
        """Step of the newest whole checkpoint, or None."""
        return self._last.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the stored best parameters, or None."""
        return self._best.latest_step()

    def save(self, step: int, state: Any, position: Position) -> None:
        """Save state and position as of `step`; a step already saved is left as it is."""
        if step in self._last.all_steps():
            return
        self._last.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position.to_json())
            ),
            force=True,
        )

    def save_best(self, step: int, params: Any) -> None:
        """Save the best parameters. Waits for `save` first: a position that names a best step must
        be on disk before the older best disappears, so that a restart can always mend the pair."""
        self._last.wait_until_finished()
        if step in self._best.all_steps():
            return
        self._best.save(
            step, args=ocp.args.Composite(params=ocp.args.StandardSave(params)), force=True
        )
        self._best.wait_until_finished()

    def restore(self, like: Any) -> tuple[int, Any, Position]:
        """Step, state and position of the newest checkpoint, shaped and laid out like `like`."""
        step = self._last.latest_step()
        restored = self._read(
            self._last,
            "last",
            step,
            ocp.args.Composite(
                state=ocp.args.StandardRestore(_abstract(like)), position=ocp.args.JsonRestore()
            ),
        )
        return int(step or 0), restored["state"], Position.from_json(restored["position"])

    def restore_best(self, like: Any) -> tuple[int, Any]:
        """Step and parameters that scored best on valid, shaped and laid out like `like`."""
        step = self._best.latest_step()
        if step is None:
            raise UserError(f"{self.folder / 'best'}: no checkpoint; train first")
        args = ocp.args.Composite(params=ocp.args.StandardRestore(_abstract(like)))
        return step, self._read(self._best, "best", step, args)["params"]

    def _read(self, manager: ocp.CheckpointManager, name: str, step: int | None, args: Any) -> Any:
        try:
            return manager.restore(step, args=args)
        except Exception as error:  # damage surfaces as whatever tensorstore or orbax meets first
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{self.folder / name / str(step)}: unreadable checkpoint "
                f"({type(error).__name__}: {reason[0][:200]}); delete that folder to go on from "
                "the one before it, or use another --workdir"
            ) from error

    def drop_from(self, step: int) -> None:
        """Delete the states of this step and later ones: a state whose own loss is not finite was
        spoilt by the step before it, and is no place to go on from."""
        self.wait()
        for saved in self._last.all_steps():
            if saved >= step:
                self._last.delete(saved)

    def wait(self) -> None:
        """Return when everything saved is on disk."""
        self._last.wait_until_finished()
        self._best.wait_until_finished()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.wait()
        self._last.close()
        self._best.close()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
