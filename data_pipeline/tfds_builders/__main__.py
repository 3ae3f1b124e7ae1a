"""Build a data set: python -m data_pipeline.tfds_builders --dataset=wikimel --manual_dir=DIR."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from data_pipeline.schema import UserError
from data_pipeline.tfds_builders import BUILDERS, CONFIGS, build


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the configs that were asked for; a line for each on stdout. 1 after an error line."""
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
    try:
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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
