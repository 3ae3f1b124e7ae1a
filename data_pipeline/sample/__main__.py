"""Make the sample world: `python -m data_pipeline.sample --root DIR [--seed N]`."""

import argparse
import sys
from pathlib import Path

from data_pipeline.sample import world
from data_pipeline.schema import UserError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the sample world.")
    parser.add_argument("--root", required=True, type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=world.SEED)
    arguments = parser.parse_args()
    try:
        world.generate(arguments.root, seed=arguments.seed)
    except UserError as error:
        sys.exit(f"error: {error}")
