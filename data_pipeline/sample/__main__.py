"""Make the sample world: `python -m data_pipeline.sample --root DIR [--seed N]`."""

import argparse
from pathlib import Path

from data_pipeline import exits
from data_pipeline.sample import world


def main() -> None:
    """Make the world that the flags ask for. UserError."""
    parser = argparse.ArgumentParser("drin-jax sample", description="Make the sample world.")
    parser.add_argument("--root", required=True, type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, default=world.SEED)
    arguments = parser.parse_args()
    world.generate(arguments.root, seed=arguments.seed)


if __name__ == "__main__":
    exits.run(main)
