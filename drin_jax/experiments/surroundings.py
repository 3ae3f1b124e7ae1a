"""What a suite's numbers are read with, once a workdir: audit, baselines, environment."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline import schema
from data_pipeline.files import write_json, write_whole
from data_pipeline.schema import UserError
from data_pipeline.store.reader import Store
from drin_jax.audit.findings import knowledge_base, overlap, retrieval, statistics
from drin_jax.evaluation.evaluate import SplitView, baseline_scores, evaluate_split
from drin_jax.extract.corpus import read_corpus
from drin_jax.extract.stored import RELEASE

PACKAGES = ("drin-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "transformers")


def write(
    config: ConfigDict, store: Store, workdir: Path, splits: tuple[str, ...], anew: bool
) -> None:
    """Write audit.json, baselines.json and groups_SPLIT.npz; not `anew`: only what is missing."""
    baselines = workdir / "baselines.json"
    if baselines.is_file() and not anew:
        return
    write_json(workdir / "audit.json", findings(config, store))
    r = config.graph.r or store.sizes["r"]
    ks = [k for k in config.eval.ks if k <= r]
    results = {}
    for split in splits:
        view = SplitView.of(store, split, r)
        groups: dict[str, Any] = view.groups
        write_whole(workdir / f"groups_{split}.npz", lambda file, g=groups: np.savez(file, **g))  # type: ignore[misc]
        results[split] = evaluate_split(view, baseline_scores(view), ks)
    write_json(baselines, results)


def findings(config: ConfigDict, store: Store) -> list[dict[str, Any]]:
    """The audit's findings over this store, but for the noise floor, which takes minutes
    (`python -m drin_jax.audit`); without the raw files only what the store itself tells."""
    found: list[dict[str, Any]] = []
    if config.data.reader != RELEASE:
        try:
            corpus = read_corpus(config)
            found = [statistics(corpus, split) for split in schema.SPLITS]
            found += [overlap(corpus), knowledge_base(corpus)]
        except UserError as error:
            found = [{"finding": "raw files", "message": f"the raw files are not read: {error}"}]
    for split in schema.SPLITS:
        if store.splits[split]:
            found += retrieval(store, split, config.graph.r)
    return found


def environment() -> dict[str, Any]:
    """Versions, device and machine that the runs of this call have."""
    device = jax.local_devices()[0]
    return {
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the repository that this program lies in, with "+" where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], **options)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **options)
    except (OSError, subprocess.SubprocessError):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
