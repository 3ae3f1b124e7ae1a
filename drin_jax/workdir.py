"""The folder of a run: claimed by a config, and, once the run is finished, opened again."""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from data_pipeline.files import hold, read_json, write_json
from data_pipeline.schema import UserError, differing
from drin_jax import models
from drin_jax.config import BEFORE, RESUMABLE, check, deciding, flat, nested
from drin_jax.evaluation.reordering import FOLDER, open_reordering
from drin_jax.evaluation.scoring import Trained
from drin_jax.extract.stored import open_store, store_path
from drin_jax.training.checkpoint import Checkpoints
from drin_jax.training.setup import set_up

CONFIG, REPORT, CHECKPOINTS, LOCK = "config.json", "report.json", "checkpoints", "lock"
UNREADABLE = frozenset("[]\\")  # in paths: orbax takes them for a pattern
LOOKS = 20  # at checkpoints that come and go
_held: dict[Path, TextIO] = {}


def claim(
    workdir: Path,
    config: ConfigDict,
    free: Collection[str] = deciding(*RESUMABLE),
    **more: Any,
) -> None:
    """Make the workdir this config's, or see that it is; from here on to its end this process
    alone writes there.

    Args:
        free: the fields that may differ.
        more: further fields that have to be the same.

    Raises:
        UserError: it was made by another config (naming the fields), its config.json is damaged, it
            cannot be written or read again, or another process works in it (which).
    """
    path = (workdir / LOCK).absolute()
    if odd := " ".join(sorted(UNREADABLE.intersection(str(path)))):
        raise UserError(
            f"--workdir {workdir}: no checkpoint under a path with {odd} could be read again; use "
            "another name"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path not in _held:
            _held[path] = hold(path)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: cannot be written ({error.strerror})") from None
    new = flat(config) | more
    if (workdir / CONFIG).exists():
        found = differing({**BEFORE, **_read(workdir, CONFIG)}, new, free)
        if found:
            raise UserError(
                f"{workdir} was made by another config ({found}); use another --workdir or the "
                "same values"
            )
    write_json(workdir / CONFIG, new)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun(Trained):
    """What `open_run` finds in a workdir.

    `config` is as the run had it, but for one local device and a store that is not read through;
    `step` is that of the best parameters on valid, `report` what `report.json` holds.
    """

    workdir: Path
    step: int
    report: Mapping[str, Any]


def open_run(workdir: Path) -> FinishedRun:
    """The finished run in `workdir`, on one local device.

    Raises:
        UserError: there is none, it is not finished, its store is gone, or its checkpoint does not
            fit its config.
        UserError: the store was made with other settings, or is damaged.
    """
    report = _read(workdir, REPORT)
    config = read_config(workdir)
    try:
        config.data.verify = False  # whoever trained on it read it through
        # Whatever the run was trained on, a few graphs need one device.
        config.parallel.devices, config.parallel.impl = 1, "shard_map"
        path = store_path(config, workdir)
        if not os.path.isdir(path):  # Path.is_dir raises where the name is too long
            raise UserError(
                f"{path}: the feature store of {workdir} is gone; extract it there again"
            )
        check(config)
        store = open_store(config, path)
        setup = set_up(config, store)
    except (AttributeError, KeyError, TypeError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise UserError(
            f"{workdir / CONFIG}: made by another version of this program ({reason}); train again"
        ) from None
    step, params = _best(workdir, setup.params, store.fingerprint())
    system = str(report.get("system", config.model.name.upper()))
    reordering = None
    if config.reranker.text:
        reordering = open_reordering(workdir / FOLDER, store, setup.spec.r)
    run = Trained(config, store, setup, params, system, reordering)
    return FinishedRun(**vars(run), workdir=workdir, step=step, report=report)


def _best(workdir: Path, like: Any, store: str) -> tuple[int, Any]:
    """Step and parameters of the best checkpoint; looked for again where a training that goes on
    there has just deleted it."""
    folder = workdir / CHECKPOINTS
    for left in reversed(range(LOOKS)):
        before = [*folder.glob("*")]
        try:
            found = Checkpoints(folder, store, read_only=True)
            with contextlib.closing(found) as checkpoints:
                _check_fit(checkpoints, like, workdir / CONFIG)
                return checkpoints.restore_best(like)
        except (UserError, OSError):
            if not left or before == [*folder.glob("*")]:
                raise
    raise AssertionError


def _check_fit(checkpoints: Checkpoints, params: Any, config: Path) -> None:
    """UserError where the best checkpoint's parameters are not the config's; a checkpoint that
    cannot be read is left for `Checkpoints` to tell."""
    path = checkpoints.folder / str(checkpoints.best_step)
    try:
        metadata = ocp.StandardCheckpointer().metadata(path / "params")
        stored = _shapes(metadata.item_metadata.tree)
    except (OSError, ValueError, AttributeError):
        return
    wanted = _shapes(params)
    misfits = [
        f"{name} is {stored.get(name, 'not there')}, should be {wanted.get(name, 'not there')}"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name)
    ]
    if misfits:
        raise UserError(f"{path}: does not fit {config} ({misfits[0]}); train again")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in models.named(tree).items()}


def read_config(workdir: Path) -> ConfigDict:
    """The config that `claim` wrote. UserError where it wrote no such thing."""
    values = _read(workdir, CONFIG)
    groups = {name.rpartition(".")[0] for name in {**BEFORE, **values}}
    for name, value in values.items():
        parts = value if isinstance(value, list) else [value]
        if name in groups or any(isinstance(part, dict | list) for part in parts):
            raise UserError(f"{workdir / CONFIG}: {name!r} is odd; use another --workdir")
    return nested(values)


def _read(workdir: Path, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(workdir / name, "use another --workdir")
    except (FileNotFoundError, NotADirectoryError):
        what = "is no folder" if not workdir.is_dir() else f"has no {name}"
        raise UserError(
            f"{workdir} {what}, so it holds no finished run; train with "
            f"python -m drin_jax.main --config=… --workdir={workdir}"
        ) from None
    return content
