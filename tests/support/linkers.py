"""A small trained model to link with, made once a process."""

import functools
import tempfile
from pathlib import Path

from data_pipeline import output
from data_pipeline.sample import world
from drin_jax import run
from drin_jax.config import card

SIZES = (240, 60, 60)  # mentions of each split


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where it lies, to the end of the process."""
    return tempfile.TemporaryDirectory(prefix="drin_jax_linker_")


@functools.cache
def trained() -> Path:
    """The workdir of a run of `relational` with pictures and NIL on a world of a few names."""
    root, workdir = Path(folder().name) / "world", Path(folder().name) / "run"
    config = card("sample").get_config("linker")
    config.data.reader, config.data.root = "jsonl", str(root)
    config.retrieval.r = 8
    config.model.width = config.model.state = 16
    config.train.epochs, config.train.batch = 6, 32
    with output.silent():
        world.generate(root, names=14, sizes=SIZES)
        run.execute(config, workdir)
    return workdir
