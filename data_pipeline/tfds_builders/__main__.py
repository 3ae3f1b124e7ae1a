"""Build a data set: python -m data_pipeline.tfds_builders --dataset=wikimel --manual_dir=DIR."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from data_pipeline import exits
from data_pipeline.tfds_builders import BUILDERS, CONFIGS, build


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the configs that were asked for; a line for each on stdout. UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.tfds_builders",
        description="Writes a public data set as TensorFlow Datasets, in ArrayRecord files.",
    )
    parser.add_argument("--dataset", required=True, choices=BUILDERS)
    parser.add_argument("--manual_dir", required=True, type=Path, help="folder of the raw files")
    parser.add_argument("--data_dir", required=True, type=Path, help="where data sets are kept")
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), choices=CONFIGS)
    parser.add_argument("--overwrite", action="store_true", help="build again what is there")
    asked = parser.parse_args(arguments)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    for config in asked.configs:
        path, counts = build(
            BUILDERS[asked.dataset],
            config,
            asked.manual_dir,
            asked.data_dir,
            overwrite=asked.overwrite,
        )
        found = ", ".join(f"{split} {n}" for split, n in counts.items())
        print(f"{path}: {found}", flush=True)


if __name__ == "__main__":
    exits.run(main)
